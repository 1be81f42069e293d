"""TinyFlow and its rivals side by side: `python -m benchmarks.run`."""
