"""
The choice between the drivers.

Another backend (epoll on Linux, kqueue on the BSDs and macOS) takes io_uring's place where io_uring
is absent or forbidden, and for no other reason: a want of descriptors or memory would hit every
backend, only later and less plainly.  The one want with a remedy of its own is that of locked
memory, for which a smaller ring is made, with a warning.

Whose word counts: the program's, where it names a backend; else that of the environment variable
``URINGIO_BACKEND``; else what works, io_uring first.
"""

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uringio._sys.errnos import SETUP_REMEDIES
from uringio._sys.system import System, real_system
from uringio.errors import OpError, RingError, UsageError, op_error

from .bound import BoundDriver
from .contract import Deliver, Driver, MakeCancelled

if TYPE_CHECKING:
    from .uring import UringDriver

__all__ = [
    "BACKENDS",
    "BLOCKED_ERRNOS",
    "ENTRIES_LADDER",
    "VARIABLE",
    "chosen_backend",
    "make_driver",
    "preload",
]

AUTO: Final = "auto"
BACKENDS: Final = ("uring", "epoll", "kqueue", "poll")
VARIABLE: Final = "URINGIO_BACKEND"

# EPERM and EACCES: forbidden here.  ENOSYS: absent, or hidden by a filter.  EINVAL: too old.
BLOCKED_ERRNOS: Final = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS})

# What every driver needs, and whose remedy is the same for all.
_WANTS_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})

# Submission slots; the later ones for a process that may lock little memory.
ENTRIES_LADDER: Final = (256, 64, 16)


def make_driver(
    deliver: Deliver,
    make_cancelled: MakeCancelled,
    *,
    backend: str | None = None,
    system: System | None = None,
) -> Driver:
    """
    Build a driver for the calling thread.

    Args:
        deliver: Called with each finished op; must only queue it.
        make_cancelled: Makes the scheduler's cancelled exception for an op.
        backend: One of `BACKENDS`, or None or ``"auto"`` to have it chosen.
        system: The system to run on; by default the real one, to which the environment speaks.

    Raises:
        RingError: ``backend="uring"`` was asked for and cannot be had, or the ring failed for want
            of memory or descriptors.
        OpError: Another driver failed for want of them.
        UsageError: No such backend.
    """
    wanted = chosen_backend(backend) if system is None else known_backend(backend)
    driver = _make(wanted, system or real_system(), deliver, make_cancelled)
    from .forks import watch

    watch(driver)
    return driver


def known_backend(backend: str | None) -> str | None:
    """Return *backend*, None for ``"auto"``; raises `UsageError` for one that there is not."""
    if backend is None or backend == AUTO:
        return None
    if backend not in BACKENDS:
        raise UsageError(f"no backend {backend!r}; there are {', '.join((AUTO, *BACKENDS))}")
    return backend


def chosen_backend(backend: str | None) -> str | None:
    """
    Return the backend that the program or else the environment asks for, None for neither.

    Raises:
        UsageError: No such backend.
    """
    wanted = known_backend(backend)
    if wanted is not None:
        return wanted
    value = os.environ.get(VARIABLE) or None
    try:
        return known_backend(value)
    except UsageError as error:
        raise UsageError(f"the environment variable {VARIABLE}: {error}") from None


def preload(backend: str | None) -> None:
    """
    Import what `make_driver` will need.

    It takes tens of milliseconds, which would count as part of the first run otherwise: a timer
    that was set before it would be late.

    Args:
        backend: What `chosen_backend` returned.
    """
    from . import forks  # noqa: F401 - for its import alone  # pyright: ignore[reportUnusedImport]

    if backend in {None, "uring"}:
        from . import uring, uring_rows  # noqa: F401  # pyright: ignore[reportUnusedImport]
    elif backend == "kqueue":
        from . import kqueue  # noqa: F401  # pyright: ignore[reportUnusedImport]
    elif backend == "poll":
        from . import poll  # noqa: F401  # pyright: ignore[reportUnusedImport]
    else:
        from . import epoll  # noqa: F401  # pyright: ignore[reportUnusedImport]


def _make(
    wanted: str | None, system: System, deliver: Deliver, make_cancelled: MakeCancelled
) -> Driver:
    refusal: RingError | None = None
    if wanted in (None, "uring"):
        try:
            return _working_uring_driver(system, deliver, make_cancelled)
        except RingError as error:
            if wanted is not None or error.errno not in BLOCKED_ERRNOS:
                raise
            # Kept to be told, without the frames that it passed and what they hold.
            error.__cause__ = error.__context__ = None
            refusal = error.with_traceback(None)
    make: Callable[[System, Deliver, MakeCancelled], BoundDriver]
    poller = wanted or system.native_poller
    if poller == "kqueue":
        from .kqueue import make_kqueue_driver as make
    elif poller == "poll":
        from .poll import make_poll_driver as make
    else:
        from .epoll import make_epoll_driver as make
    try:
        driver = make(system, deliver, make_cancelled)
    except OpError:
        raise
    except OSError as error:  # the standard library's, which says neither what nor what to do
        number = error.errno or errno.EIO
        remedy = SETUP_REMEDIES[number] if number in _WANTS_OF_DESCRIPTORS else ""
        raise op_error(number, f"making the {poller} driver", detail=remedy) from error
    driver.refusal = refusal
    return driver


def _working_uring_driver(
    system: System, deliver: Deliver, make_cancelled: MakeCancelled
) -> "UringDriver":
    """Make a driver over a ring that can be entered as well: a filter may know any of the calls."""
    from .uring_rows import require

    driver = _fitting_uring_driver(system, deliver, make_cancelled)
    try:
        require(driver.ring)
        driver.flush()  # the read of the wake pipe, which every driver begins with
    except BaseException:
        if driver.ring.registered_by is not None:
            driver.ring.give_index_back()
        driver.leave()
        raise
    return driver


def _fitting_uring_driver(
    system: System, deliver: Deliver, make_cancelled: MakeCancelled
) -> "UringDriver":
    """Make a driver whose ring takes no more memory than may be locked; warn if that is little."""
    from .uring import make_uring_driver

    first: RingError | None = None
    for entries in ENTRIES_LADDER:
        try:
            driver = make_uring_driver(system, deliver, make_cancelled, entries=entries)
        except OSError as error:
            failure = error if isinstance(error, RingError) else _as_ring_error(error)
            first = first or failure
            if error.errno != errno.ENOMEM:
                raise failure from error
            continue
        if first is not None:
            try:
                _warn_small(entries)
            except BaseException:  # where warnings are errors
                driver.close()
                raise
        return driver
    assert first is not None
    raise first


def _as_ring_error(error: OSError) -> RingError:
    number = error.errno or 0
    refused = error.op if isinstance(error, OpError) else "making a pipe for the ring"
    remedy = SETUP_REMEDIES.get(number, "See io_uring_register(2)")
    return RingError(number, f"{refused} failed", remedy)


def _warn_small(entries: int) -> None:
    import warnings

    warnings.warn(
        f"the ring has {entries} submission slots instead of {ENTRIES_LADDER[0]}, since this "
        "process may lock too little memory: raise RLIMIT_MEMLOCK (ulimit -l)",
        RuntimeWarning,
        stacklevel=2,
    )
