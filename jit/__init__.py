"""The compiler: graph -> fused groups -> loop IR -> LLVM -> one native call.

`hybrid` finds it (`jit.backend.backend`) through its backend table; nothing else imports it. Nothing is imported here, so
that a part such as `jit.loopir` is usable alone. Read in the order of compiling: `fuse`, `lower` (`maps`, `rows`,
`contract` ...), `loopir`, `vector_math`, `llvm`, `machine`, `program`, `plan`, `runtime`, `cache`.
"""
