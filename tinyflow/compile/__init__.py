"""From a graph to an executable step: the only place that joins passes, schedule, codegen, runtime.

Main functions: ``compile_function`` (arrays in, arrays out), ``compile_step`` (for sessions).
"""

from tinyflow.compile.step import BoundStep, CompiledFunction, Step, compile_function, compile_step

__all__ = ["BoundStep", "CompiledFunction", "Step", "compile_function", "compile_step"]
