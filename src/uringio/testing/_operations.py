"""Every operation that is simulated: the modules that enter their handlers into the one table."""

from . import _cancelling, _control_requests, _name_requests, _timers, _transfers
from ._requests import HANDLERS

__all__ = ["HANDLERS"]

assert HANDLERS, (_cancelling, _control_requests, _name_requests, _timers, _transfers)
