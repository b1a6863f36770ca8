"""Every operation that is simulated: the modules that enter their handlers into the one table."""

from . import _cancelling, _control_requests, _name_requests, _timers, _transfers
from ._requests import HANDLERS, REFUSALS

__all__ = ["HANDLERS", "REFUSALS"]

assert HANDLERS, (_cancelling, _control_requests, _name_requests, _timers, _transfers)
