"""A VPC made of network namespaces: one lab for the demo, the tests and the benchmarks.

Nothing here imports the agent, so the lab stays an independent witness of what was sent.
"""

from .containers import Container
from .lab import Lab
from .shell import LabError
from .vpc import Eni
from .workloads import Workload

__all__ = ["Container", "Eni", "Lab", "LabError", "Workload"]
