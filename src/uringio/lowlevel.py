"""Doors for those who build on the ring or the drivers themselves."""

from collections.abc import Callable
from functools import partial

from uringio._driver.op import NOP, Op

__all__ = ["Op", "nop"]

# `partial` rather than a function: one Python call less per op.
nop: Callable[[], Op[int]] = partial(Op, NOP)
