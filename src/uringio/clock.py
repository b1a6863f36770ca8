"""Waiting for time to pass."""

from math import isnan

from uringio._driver import current
from uringio._driver.op import TIMEOUT, Op

__all__ = ["sleep"]

_SECONDS_MAX = 1e9


def sleep(seconds: float) -> Op[None]:
    """
    Wait; other tasks run meanwhile.

    Args:
        seconds: From 0 up; counted from now, not from when the result is awaited.

    Raises:
        ValueError: *seconds* is negative or not a number.

    Cancellation: at once, leaving nothing behind.
    """
    if seconds < 0 or isnan(seconds):
        raise ValueError(f"a time to sleep is from 0 up, not {seconds!r} seconds")
    now_ns = current.driver().system.monotonic_ns()
    return Op(TIMEOUT, off=now_ns + int(min(seconds, _SECONDS_MAX) * 1e9))
