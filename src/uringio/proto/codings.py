"""
Content codings: which files are worth having compressed siblings, and which of them a client takes.

Source: RFC 9110 section 12.5.3.
"""

import re
from functools import lru_cache

__all__ = ["SUFFIXES", "acceptable_codings", "is_compressible"]

# Coding -> the ending of the sibling that holds it, best first.
SUFFIXES = {"br": b".br", "zstd": b".zst", "gzip": b".gz"}

_ITEM = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*"
    r"(?:;[ \t]*[qQ][ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)
_COMPRESSIBLE = frozenset({
    b"application/javascript", b"application/json", b"application/ld+json",
    b"application/manifest+json", b"application/wasm", b"application/xhtml+xml",
    b"application/xml", b"font/otf", b"font/ttf", b"image/bmp", b"image/svg+xml",
})  # fmt: skip


def is_compressible(kind: bytes) -> bool:
    """Tell whether files of a media type are commonly stored compressed beside themselves."""
    bare = kind.partition(b";")[0]
    return bare.startswith(b"text/") or bare in _COMPRESSIBLE


# Clients send a few dozen bytes; a longer field counts as asking for nothing, and is not kept.
_ACCEPT_BYTES_MAX = 1000


def acceptable_codings(accept: bytes) -> tuple[str, ...]:
    """
    Return the codings of `SUFFIXES` that an ``Accept-Encoding`` allows, most wanted first.

    Those that the client wants less than the file as it is are left out.
    """
    return _parse(accept) if len(accept) <= _ACCEPT_BYTES_MAX else ()


@lru_cache(maxsize=256)
def _parse(accept: bytes) -> tuple[str, ...]:
    wishes: dict[str, float] = {}
    for part in accept.decode("latin-1").split(","):
        match = _ITEM.fullmatch(part)
        if match is not None:
            wishes[match[1].lower().removeprefix("x-")] = float(match[2] or 1)
    rest = wishes.get("*", 0.0)
    plain = wishes.get("identity", 0.0)
    found = [(coding, wishes.get(coding, rest)) for coding in SUFFIXES]
    found.sort(key=lambda wish: -wish[1])  # stable: equally wanted ones stay in our order
    return tuple(coding for coding, weight in found if weight > 0 and weight >= plain)
