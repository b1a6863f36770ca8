"""
A simulated kernel, to run programs on: the same for the same seed, with faults on demand.

`run` stands beside `uringio.run`; the program, the scheduler, the driver and the ring are the real
ones, and only what is below them is simulated.

Example::

    from uringio import testing

    kernel = testing.SimKernel(seed=7, profile="6.1", faults=testing.STORM)
    testing.run(main, kernel=kernel)
    print(kernel.trace_hash(), kernel.faults.counts)
"""

from ._clock import SimClock
from ._disk import Disk
from ._faults import CALM, STORM, ExactFault, FaultPlan, Faults, Strike
from ._kernel import SimKernel
from ._minimising import Minimised, minimise
from ._profiles import PROFILES, Profile
from ._running import replay_command, run
from ._sockets import SimNet
from .errors import DeadlockError, LeakError, NotSimulatedError, SimulationError

__all__ = [
    "CALM",
    "PROFILES",
    "STORM",
    "DeadlockError",
    "Disk",
    "ExactFault",
    "FaultPlan",
    "Faults",
    "LeakError",
    "Minimised",
    "NotSimulatedError",
    "Profile",
    "SimClock",
    "SimKernel",
    "SimNet",
    "SimulationError",
    "Strike",
    "minimise",
    "replay_command",
    "run",
]
