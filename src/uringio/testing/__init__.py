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

from ._aio import SimEventLoop, run_asyncio
from ._clock import SimClock
from ._disk import Disk
from ._faults import CALM, STORM, ExactFault, FaultPlan, Faults, OpFault, Strike
from ._idle import wait_all_idle
from ._invariants import Invariants
from ._kernel import SimKernel
from ._leaks import Holdings, assert_no_leaks, holdings
from ._listener_contract import Accepting, Connect, ListenerFactory, check_listener
from ._memory_streams import (
    MemoryReceiveStream,
    MemorySendStream,
    MemoryStream,
    memory_pipe,
    memory_stream_pair,
)
from ._minimising import Minimised, minimise
from ._net import SimNet
from ._profiles import PROFILES, Profile
from ._running import replay_command, run, running_kernel
from ._sequencer import Sequencer
from ._stream_contract import StreamFactory, check_stream
from .errors import (
    ContractError,
    DeadlockError,
    InvariantError,
    LeakError,
    NotSimulatedError,
    SimulationError,
)

__all__ = [
    "CALM",
    "PROFILES",
    "STORM",
    "Accepting",
    "Connect",
    "ContractError",
    "DeadlockError",
    "Disk",
    "ExactFault",
    "FaultPlan",
    "Faults",
    "Holdings",
    "InvariantError",
    "Invariants",
    "LeakError",
    "ListenerFactory",
    "MemoryReceiveStream",
    "MemorySendStream",
    "MemoryStream",
    "Minimised",
    "NotSimulatedError",
    "OpFault",
    "Profile",
    "Sequencer",
    "SimClock",
    "SimEventLoop",
    "SimKernel",
    "SimNet",
    "SimulationError",
    "StreamFactory",
    "Strike",
    "assert_no_leaks",
    "check_listener",
    "check_stream",
    "holdings",
    "memory_pipe",
    "memory_stream_pair",
    "minimise",
    "replay_command",
    "run",
    "run_asyncio",
    "running_kernel",
    "wait_all_idle",
]
