"""The terms of a wait: until when, for how many, with which signals; and a region full of them."""

import operator
from collections.abc import Collection
from typing import Final, NamedTuple

from uringio._ring.setup import Ring as Core
from uringio._ring.waits import signal_mask
from uringio._sys import constants as k
from uringio._sys.layouts import MEM_REGION_REG, REG_WAIT, REGION_DESC
from uringio._sys.memory import pin
from uringio.errors import UsageError

from ._opcodes import RegisterOp
from ._registering import call

__all__ = ["Terms", "WaitRegion", "make_terms"]

_NS_PER_S: Final = 1_000_000_000
_NS_PER_US: Final = 1000
_PAGE_BYTES: Final = 4096
_MASK_BYTES: Final = 8
_REGION_MAX: Final = 1 << 16


class Terms(NamedTuple):
    """
    What a wait is bound by.

    Attributes:
        time_ns: How long at most, or until when; None: for ever.
        absolute: It is a moment.
        min_wait_us: After that long, one completion is enough.
        mask: Signals that are blocked meanwhile, None: those that the thread blocks.
    """

    time_ns: int | None
    absolute: bool
    min_wait_us: int
    mask: int | None


def make_terms(
    timeout_ns: int | None, until_ns: int | None, min_wait_ns: int, sigmask: Collection[int] | None
) -> Terms:
    """
    Check the terms of a wait.

    Raises:
        UsageError: It has two ends.
        ValueError: A time is negative or too long, or there is no such signal.
    """
    if timeout_ns is not None and until_ns is not None:
        raise UsageError("a wait ends at a moment, or after a time: give until_ns or timeout_ns")
    time_ns = until_ns if timeout_ns is None else timeout_ns
    if time_ns is not None and not 0 <= operator.index(time_ns) < 1 << 63:
        raise ValueError(f"a wait cannot take, or end at, {time_ns} ns")
    min_wait_us = -(-operator.index(min_wait_ns) // _NS_PER_US)
    if not 0 <= min_wait_us < 1 << 32:
        raise ValueError(
            f"the least duration of a wait is up to 2**32 - 1 microseconds, not {min_wait_ns} ns"
        )
    if timeout_ns is not None:
        min_wait_us = min(min_wait_us, -(-timeout_ns // _NS_PER_US))
    mask = None if sigmask is None else signal_mask(sigmask)
    return Terms(time_ns, until_ns is not None, min_wait_us, mask)


class WaitRegion:
    """
    Terms of waits in memory that the kernel knows; made by `Ring.setup_reg_wait`.

    A wait that names one by its place spares the kernel to copy it in.  Terms may be written anew
    at any time; what counts is what stands there when a wait begins.

    Attributes:
        count: How many there is room for.

    Lifetime: the ring keeps the memory until it is closed; a region cannot be taken back.

    Kernel: 6.13.  Twin: io_uring_setup_reg_wait.  Source: io_uring_register_wait_reg(3).
    """

    def __init__(self, core: Core, count: int) -> None:
        if not 0 < count <= _REGION_MAX:
            raise ValueError(f"a region holds from 1 to {_REGION_MAX} waits, not {count}")
        size = -(-count * REG_WAIT.size // _PAGE_BYTES) * _PAGE_BYTES
        # The masks of signals stand behind what is registered: the kernel fetches them itself.
        self._memory = core.system.allocate(size + count * _MASK_BYTES)
        self._masks_at = size
        self.count = count
        self._terms = [Terms(None, False, 0, None)] * count
        description = bytearray(
            REGION_DESC.pack(self._memory.addr, size, k.IORING_MEM_REGION_TYPE_USER, 0, 0)
        )
        addr, _, _keep = pin(description, writable=True)
        argument = MEM_REGION_REG.pack(addr, k.IORING_MEM_REGION_REG_WAIT_ARG)
        call(core, RegisterOp.MEM_REGION, argument, 1)

    def set(
        self,
        index: int,
        *,
        timeout_ns: int | None = None,
        until_ns: int | None = None,
        min_wait_ns: int = 0,
        sigmask: Collection[int] | None = None,
    ) -> None:
        """
        Write the terms of one wait; see `Ring.wait` for what they mean.

        Raises:
            UsageError, ValueError: As there.
            ValueError: There is no such place.
        """
        self.terms(index)
        terms = make_terms(timeout_ns, until_ns, min_wait_ns, sigmask)
        masks_at = self._masks_at + index * _MASK_BYTES
        if terms.mask is not None:
            self._memory.view[masks_at : masks_at + _MASK_BYTES].cast("Q")[0] = terms.mask
        REG_WAIT.pack_into(
            self._memory.view,
            index * REG_WAIT.size,
            *divmod(terms.time_ns or 0, _NS_PER_S),
            terms.min_wait_us,
            0 if terms.time_ns is None else k.IORING_REG_WAIT_TS,
            0 if terms.mask is None else self._memory.addr + masks_at,
            0 if terms.mask is None else _MASK_BYTES,
        )
        self._terms[index] = terms

    def terms(self, index: int) -> Terms:
        """
        Return what stands at a place.

        Raises:
            ValueError: There is no such place.
        """
        if not 0 <= index < self.count:
            raise ValueError(f"there is no wait {index} among {self.count}")
        return self._terms[index]
