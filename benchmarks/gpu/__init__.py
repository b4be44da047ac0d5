"""The checks of a machine with a GPU: `python -m benchmarks.gpu` (`make gpu-check`). See `__main__.py`."""
