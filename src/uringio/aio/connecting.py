"""
Connecting to the first of several addresses that answers.

One after another, or, where the program names a delay, as RFC 8305 (happy eyeballs) has it: the
next attempt begins when one has failed, or after the delay, those begun before go on, and the first
to be connected ends all others.  An attempt that is ended closes its socket, when the kernel has
let go of it.
"""

import asyncio
import errno
from asyncio import staggered
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from uringio._driver.contract import Driver
from uringio._driver.op import CONNECT, Op
from uringio._driver.sockets import AddressInfo, open_stream_socket

from .socket_calls import SocketCalls

__all__ = ["connect", "connect_first", "interleaved"]

T = TypeVar("T")


def interleaved(infos: Iterable[AddressInfo], first_family_count: int) -> list[AddressInfo]:
    """
    Order addresses so that families take turns.

    Args:
        infos: Addresses as the resolver ordered them.
        first_family_count: How many of the first one's family come before any other. [count]
    """
    families: dict[int, list[AddressInfo]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    lists = list(families.values())
    head: list[AddressInfo] = []
    if lists and first_family_count > 1:
        head = lists[0][: first_family_count - 1]
        lists[0] = lists[0][first_family_count - 1 :]
    turns = zip_longest(*lists)
    return head + [info for turn in turns for info in turn if info is not None]


async def connect_first(
    loop: asyncio.AbstractEventLoop,
    driver: Driver,
    infos: Sequence[AddressInfo],
    locals_: Sequence[AddressInfo],
    delay_seconds: float | None,
    *,
    all_errors: bool = False,
) -> int:
    """
    Connect to one of several addresses; returns the descriptor.

    Args:
        loop: The running loop.
        driver: Its driver.
        infos: Where to connect to, in the order to try.
        locals_: What to bind to before; the first of the family that can be had is taken.
        delay_seconds: How long to wait for an answer before the next attempt begins beside; None
            for ever.
        all_errors: Raise all that happened.

    Raises:
        OSError: No address answered; with the errno of the first attempt.
        ExceptionGroup: The same, with *all_errors*.

    Cancellation: every socket is closed.
    """
    errors: list[OSError] = []
    connected: list[int] = []

    async def attempt(info: AddressInfo) -> None:
        try:
            connected.append(await connect(loop, driver, info, locals_))
        except OSError as error:
            errors.append(error)
            raise

    try:
        if delay_seconds is None:
            for info in infos:
                try:
                    await attempt(info)
                    break
                except OSError:
                    continue
        else:
            attempts = [partial(attempt, info) for info in infos]
            await staggered.staggered_race(attempts, delay_seconds, loop=loop)
    except BaseException:
        _close(driver, connected)
        raise
    if not connected:
        # Tracebacks hold the frames of attempts, and those this one's errors.
        try:
            raise _failure(errors, all_errors)
        finally:
            del errors
    _close(driver, connected[1:])
    return connected[0]


def _close(driver: Driver, fds: Iterable[int]) -> None:
    for fd in fds:
        driver.unregister(fd)
        driver.system.close(fd)


async def connect(
    loop: asyncio.AbstractEventLoop,
    driver: Driver,
    info: AddressInfo,
    locals_: Sequence[AddressInfo] = (),
) -> int:
    """
    Make a socket and connect it; returns its descriptor.

    Where a program has put something else in the place of the loop's ``sock_connect``, such as a
    proxy or a test that wants no network, that is what connects, as on asyncio's loop.

    Cancellation: the socket is closed.
    """
    fd, packed = open_stream_socket(driver, info)
    try:
        _bind_one(driver, fd, info[0], locals_)
        if getattr(loop.sock_connect, "__func__", None) is SocketCalls.sock_connect:
            op: Op[None] = Op(CONNECT, fd, off=len(packed), memory=packed)
            await op
        else:
            await _connect_otherwise(loop, driver, fd, info)
    except BaseException as error:
        _close(driver, [fd])
        if isinstance(error, OSError):
            error.add_note(f"while connecting to {info[3]!r}")
        raise
    return fd


async def _connect_otherwise(
    loop: asyncio.AbstractEventLoop, driver: Driver, fd: int, info: AddressInfo
) -> None:
    driver.unregister(fd)
    sock = driver.system.socket_object(fd)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, info[3])
    finally:
        sock.detach()
        driver.register(fd)


def _bind_one(driver: Driver, fd: int, family: int, locals_: Sequence[AddressInfo]) -> None:
    """Bind *fd* to the first local address of its family that can be had."""
    if not locals_:
        return
    failure: OSError | None = None
    for local_family, _, _, address in locals_:
        if local_family != family:
            continue
        try:
            driver.system.bind(fd, family, address)
        except OSError as error:
            error.add_note(f"while binding to the local address {address!r}")
            failure = failure or error
        else:
            return
    if failure is None:
        raise OSError(errno.EADDRNOTAVAIL, f"no matching local address with family={family} found")
    raise failure


def _failure(errors: list[OSError], all_errors: bool) -> Exception:
    """Return what to raise for the failures of all addresses; asyncio's own words."""
    if all_errors:
        return ExceptionGroup("create_connection failed", errors)
    first = errors[0]
    if all(str(error) == str(first) for error in errors):
        return first
    told = "Multiple exceptions: " + ", ".join(map(str, errors))
    # An OSError with an errno is of the class that fits.
    return OSError(told) if first.errno is None else OSError(first.errno, told)
