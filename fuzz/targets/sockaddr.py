"""The kernel's addresses: any bytes are decoded or refused, and what was decoded encodes again."""

from uringio._sys.sockaddr import pack_sockaddr, unpack_sockaddr

INET, INET6, UNIX = 2, 10, 1


def run(data: bytes) -> None:
    try:
        address = unpack_sockaddr(data)
    except ValueError:
        return
    if isinstance(address, tuple):
        family = INET if len(address) == 2 else INET6
        packed = pack_sockaddr_or_none(family, address)
        if packed is not None:
            assert unpack_sockaddr(packed) == address
    elif address and len(data) <= 110:
        packed = pack_sockaddr_or_none(UNIX, address)
        if packed is not None:
            assert unpack_sockaddr(packed) == address


def pack_sockaddr_or_none(family: int, address: object) -> bytes | None:
    try:
        return pack_sockaddr(family, address)  # type: ignore[arg-type]
    except ValueError:
        return None  # flow information that only a kernel may set, a path of 109 bytes
