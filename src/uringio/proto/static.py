"""
What a file server says: names out of request targets, types, dates.

Pure functions from bytes to bytes.  Whether a name leads anywhere, and whether it stays inside the
served folder, is for whoever opens it; the names made here cannot climb (no ``.``, ``..``, NUL or
slash inside a segment), but a symbolic link can.
"""

import mimetypes
import re
import time
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

import attrs

from uringio.proto._octets import is_host

__all__ = [
    "Target",
    "TargetError",
    "content_type",
    "http_date",
    "parse_target",
]


class TargetError(Exception):
    """
    A request target that cannot name a file.

    Attributes:
        status: 400 when it is not well-formed, 404 when no file can have the name.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@attrs.frozen
class Target:
    """
    A request target, taken apart.

    Attributes:
        segments: The names along the path, percent-decoded; none for the root.
        is_folder: It ends in a slash.
        query: What follows the question mark, with it; empty when there is none.
    """

    segments: tuple[bytes, ...]
    is_folder: bool
    query: str

    @property
    def path(self) -> bytes:
        """The path relative to the root, ``b"."`` for the root itself."""
        return b"/".join(self.segments) or b"."

    @property
    def folder_location(self) -> bytes:
        """
        Where the client finds this as a folder.

        Begins with exactly one slash, so that no browser takes it for the name of a host.
        """
        parts = [quote_from_bytes(segment, safe="") + "/" for segment in self.segments]
        return ("/" + "".join(parts) + self.query).encode("ascii")


_SCHEME = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
# What makes a path take the long way: characters that mean something, empty names, dots in front.
_ODD = re.compile(r"[^A-Za-z0-9._~/-]|//|/\.")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse_target(target: str) -> Target:
    """
    Take a request target in origin or absolute form apart.

    Empty segments are dropped: a file system does not see them either.

    Raises:
        TargetError: It is malformed, or names what no folder holds.
    """
    if target.startswith("/") and _ODD.search(target) is None:
        names = target.encode("ascii").split(b"/")
        is_folder = not names[-1]
        return Target(tuple(names[1:-1] if is_folder else names[1:]), is_folder, "")
    if (scheme := _SCHEME.match(target)) is not None:
        if not is_host(authority := scheme[1].encode("latin-1")) or authority[:1] in {b"", b":"}:
            raise TargetError(400, "the target names no host")
        target = target[scheme.end() :]
        if not target.startswith("/"):
            target = "/" + target
    if not target.startswith("/"):
        raise TargetError(400, "the target is not a path")
    path, mark, query = target.partition("?")
    if "#" in target:
        raise TargetError(400, "the target has a fragment")
    if _BAD_ESCAPE.search(path) is not None:
        raise TargetError(400, "the target has a broken percent escape")
    # Split first, decode after: an encoded slash stays inside its segment, where no name has one.
    segments = tuple(unquote_to_bytes(part) for part in path.split("/") if part)
    for segment in segments:
        if b"\0" in segment:
            raise TargetError(400, "the target has a NUL")
        if segment in {b".", b".."} or b"/" in segment:
            raise TargetError(404, "no file has this name")
    return Target(segments, path.endswith("/"), mark + query)


# Only the standard library's own table: the answer must not depend on the machine's files.
_TYPES = mimetypes.MimeTypes(filenames=())
for _kind, _endings in {
    "application/wasm": (".wasm",),
    "font/otf": (".otf",),
    "font/ttf": (".ttf",),
    "font/woff": (".woff",),
    "font/woff2": (".woff2",),
    "image/avif": (".avif",),
    "image/webp": (".webp",),
    "text/javascript": (".js", ".mjs"),
    "text/markdown": (".md", ".markdown"),
    "text/plain": (".cfg", ".conf", ".ini", ".log", ".rst", ".toml", ".yaml", ".yml"),
}.items():
    for _ending in _endings:
        _TYPES.add_type(_kind, _ending)

_TEXTUAL = frozenset({"application/json", "application/xml", "image/svg+xml"})

# A compressed file is sent as what it is: Content-Encoding would have clients unpack it.
_COMPRESSED = {
    "br": "application/octet-stream",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}


@lru_cache(maxsize=512)
def _type_of_ending(ending: str) -> bytes:
    kind, encoding = _TYPES.guess_type("x" + ending)
    if encoding is not None:
        kind = _COMPRESSED.get(encoding, "application/octet-stream")
    if kind is None:
        kind = "application/octet-stream"
    if kind.startswith("text/") or kind in _TEXTUAL:
        kind += "; charset=utf-8"
    return kind.encode("ascii")


def content_type(name: bytes) -> bytes:
    """Return the media type for a file of this name, by its ending."""
    stem, dot, ending = name.rpartition(b".")
    if not stem or not dot:  # nothing but an ending is a hidden file
        return b"application/octet-stream"
    return _type_of_ending("." + ending.decode("latin-1").lower())


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


@lru_cache(maxsize=512)
def http_date(seconds: int) -> bytes:
    """Return a time since the epoch as IMF-fixdate, clamped to years of four digits."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(
        min(max(seconds, -62135596800), 253402300799)
    )
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{second:02} GMT"
    ).encode("ascii")
