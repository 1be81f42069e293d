"""The autotuner: searches schedule parameters by measuring, and writes what it found to the log.

Main types: ``Workload`` (a kernel and how often it runs), ``Finding``; main function ``tune``.
Imports schedule, runtime and compile.
"""

from tinyflow.tune.search import Finding, tune
from tinyflow.tune.workload import Workload, workloads_of

__all__ = ["Finding", "Workload", "tune", "workloads_of"]
