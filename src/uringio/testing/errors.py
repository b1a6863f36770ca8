"""How the test kit says that something is wrong."""

__all__ = [
    "ContractError",
    "DeadlockError",
    "InvariantError",
    "LeakError",
    "NotSimulatedError",
    "SimulationError",
]


class SimulationError(AssertionError):
    """The program under simulation, or the simulation itself, went wrong."""


class ContractError(AssertionError):
    """A transport does not do what every transport must; the message says which behaviour."""


class DeadlockError(SimulationError):
    """The program waits for ever: nothing is going to happen any more, and it set no deadline."""


class LeakError(SimulationError):
    """The program ended and left descriptors, requests or rings behind."""


class InvariantError(SimulationError):
    """Something that must always hold did not, whether or not the program noticed."""


class NotSimulatedError(SimulationError):
    """The program used a part of the kernel that the simulation does not have."""
