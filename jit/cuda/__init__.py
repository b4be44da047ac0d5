"""The compiler for GPUs: the loop IR that feeds LLVM as CUDA C, and the programs that launch it."""
