"""Names to addresses, off the loop."""

from collections.abc import Sequence
from functools import partial
from typing import cast

from uringio._driver import current
from uringio._driver.contract import Driver
from uringio._driver.op import Offload
from uringio._driver.sockets import AddressInfo, Inet4Address, Inet6Address, numeric_address

__all__ = ["resolve", "resolve_infos"]


async def resolve(host: str, port: int) -> list[Inet4Address | Inet6Address]:
    """
    Return the addresses of a host, the most promising first.

    Args:
        host: A name, or a numeric address, of which no resolver is asked.
        port: 0..65535; it becomes part of each address.

    Raises:
        OSError: The name cannot be resolved (``socket.gaierror``).
        ValueError: The port is out of range, or *host* cannot be a name.

    Cancellation: at once; the resolver, which may take minutes to give up, goes on unheard.

    Source: getaddrinfo(3), in a worker thread.
    """
    driver = current.driver()
    infos = await resolve_infos(driver, host, port, driver.system.SOCK_STREAM)
    return list(dict.fromkeys(typed_address(driver, info) for info in infos))


async def resolve_infos(driver: Driver, host: str, port: int, kind: int) -> Sequence[AddressInfo]:
    """Return the addresses of a host for sockets of *kind*; see `resolve`."""
    system = driver.system
    numeric = numeric_address(system, host, port, kind)
    if numeric is not None:
        return (numeric,)
    if "\0" in host:
        # The C library would see a name that ends there, another one than was asked for.
        raise ValueError(f"a host's name cannot hold a NUL character: {host!r}")
    try:
        return await Offload(partial(system.getaddrinfo, host, port, kind))
    except OSError as error:
        error.add_note(f"while resolving {host!r}")
        raise


def typed_address(driver: Driver, info: AddressInfo) -> Inet4Address | Inet6Address:
    """Return the address of an internet *info*."""
    family, _, _, address = info
    if family == driver.system.AF_INET:
        return Inet4Address(*cast("tuple[str, int]", address))
    return Inet6Address(*cast("tuple[str, int, int, int]", address))
