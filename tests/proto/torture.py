"""
Malformed heads and bodies by the rule that they break: every octet that has no place there.

The corpus holds inputs that somebody thought of one by one; these are made from tables, so that no
octet is forgotten.  All must be refused: the RFC lets a server forgive some of them, but the next
hop may forgive differently.
"""

from tests.proto.corpus import AFTER, CHUNKED, MALFORMED, POST, H

__all__ = ["TORTURE"]

_BAD = {400}
_CONTROLS = [*range(9), *range(10, 32), 127]
_SEPARATORS = b'"(),/;<=>?@[\\]{}'


def _head(line: bytes = b"GET / HTTP/1.1", fields: bytes = H) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def _octets() -> dict[str, tuple[bytes, set[int]]]:
    """One octet where it must not be."""
    made: dict[str, tuple[bytes, set[int]]] = {}
    for code in _CONTROLS:
        one = bytes([code])
        made[f"value-with-{code:02x}"] = (_head(fields=H + b"X: b" + one + b"c\r\n") + AFTER, _BAD)
        made[f"chunk-extension-with-{code:02x}"] = (
            CHUNKED + b"5;a" + one + b"b\r\nhello\r\n0\r\n\r\n" + AFTER,
            _BAD,
        )
        made[f"trailer-value-with-{code:02x}"] = (
            CHUNKED + b"0\r\nX: a" + one + b"b\r\n\r\n" + AFTER,
            _BAD,
        )
    for code in [*_CONTROLS, 9, 32, 0x80, 0xFF]:
        one = bytes([code])
        made[f"target-with-{code:02x}"] = (_head(b"GET /a" + one + b"b HTTP/1.1") + AFTER, _BAD)
    for code in [*_CONTROLS, 9, 32, *_SEPARATORS, 0x80, 0xFF]:
        one = bytes([code])
        made[f"name-with-{code:02x}"] = (_head(fields=H + b"X" + one + b"Y: b\r\n") + AFTER, _BAD)
        made[f"method-with-{code:02x}"] = (_head(b"G" + one + b"T / HTTP/1.1") + AFTER, _BAD)
        made[f"trailer-name-with-{code:02x}"] = (
            CHUNKED + b"0\r\nX" + one + b"Y: b\r\n\r\n" + AFTER,
            _BAD,
        )
    for code in b"ghxyzGX+-_.,:'\"\\/ \t\x00\x0b\x0c\x7f\x80\xa0":
        one = bytes([code])
        made[f"chunk-size-behind-{code:02x}"] = (
            CHUNKED + one + b"5\r\nhello\r\n0\r\n\r\n" + AFTER,
            _BAD,
        )
        made[f"chunk-size-before-{code:02x}"] = (
            CHUNKED + b"5" + one + b"\r\nhello\r\n0\r\n\r\n" + AFTER,
            _BAD,
        )
    return made


_VERSIONS = [
    b"HTTP/1.11", b"HTTP/1.", b"HTTP/.1", b"HTTP/11", b"HTTP/1", b"HTTP/1.1.1", b"HTTPS/1.1",
    b"Http/1.1", b"HTTP/-1.1", b"HTTP/1.a", b"HTTP/a.1", b"HTTP/1,1", b"HTTP/1.1\t", b"\tHTTP/1.1",
    b"HTTP /1.1", b"HTTP/ 1.1", b"HTTP/1 .1", b"HTTP", b"HTTP/", b"ICY/1.1", b"/1.1", b"HTTP\\1.1",
    b"HTTP/01.1", b"HTTP/1.01", b"HTTP/0x1.1", b"HTTP/0.0", b"HTTP/1.1 HTTP/1.1", b"HTTP/1.1;q=1",
    b"HTTP/\xd9\xa1.1", b"1.1",
]  # fmt: skip

_REQUEST_LINES = [
    b"GET",
    b"GET ",
    b"GET /",
    b"GET / ",
    b"GET  HTTP/1.1",
    b"GET HTTP/1.1",
    b"/ HTTP/1.1",
    b" / HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b"GET /  HTTP/1.1",
    b"GET / / HTTP/1.1",
    b"GET\t/\tHTTP/1.1",
    b"GET /\x0bHTTP/1.1",
    b"GET / HTTP/1.1\r",
    b"GET: / HTTP/1.1",
    b"Host: a",
    b"HTTP/1.1 200 OK",
    b"GET /\xe2\x80\xa8 HTTP/1.1",
    b"\xef\xbb\xbfGET / HTTP/1.1",
    b'"GET" / HTTP/1.1',
]

_LENGTHS = [
    b" 5 5", b" 5,5", b" ,5", b" 5,", b" ;5", b" 5;", b" 5.0", b" 5e0", b" 0b101", b" 0o5", b" 0X5",
    b" 5h", b" h5", b" '5'", b' "5"', b" (5)", b" ++5", b" --5", b" - 5", b" 5-", b" 5\x0b",
    b" \x0c5", b" \xa05", b" 5\xa0", b" \xd9\xa5", b" \xef\xbc\x95", b" NaN", b" inf", b" null",
    b" 9223372036854775808", b" 18446744073709551616", b" 340282366920938463463374607431768211461",
    b" ", b"\t", b"", b" 5\r\nContent-Length: 0", b" 5\r\ncontent-length: 5",
    b" 5\r\nCONTENT-LENGTH: 6", b" 5\r\n Content-Length: 6", b" \r\n 5", b"\r\n\t5",
]  # fmt: skip

_CODINGS = [
    b" chunked\x00", b" \x00chunked", b" chunked\x0b", b" chunked\x0c", b" \xa0chunked", b" chunke",
    b" chunkedd", b" xchunked", b" x-chunked", b" chunked-x", b" chunked x", b" chunked;",
    b" chunked;q=1", b" chunked,", b" ,chunked", b" chunked,,", b" chunked,identity",
    b" chunked, gzip", b" identity", b" gzip", b" cow", b" 'chunked'", b' "chunked"', b" [chunked]",
    b" chunked/1", b" =chunked", b" chunked\\", b" chunk\xc3\xabd", b" chun\xc4\xb7ed",
    b" c\xcc\xa7",
    b" chunked\r\n gzip", b"\r\n chunked", b" chunked\r\nTransfer-Encoding: identity",
    b" identity\r\nTransfer-Encoding: chunked", b" chunked\r\nTransfer-encoding: cow",
    b" chunked, chunked", b" chunked ,chunked", b" chunked\tchunked", b" true", b" 1", b" *", b"",
    b" chunked\r\nTransfer-Encoding:", b"\r\nTransfer-Encoding: chunked",
]  # fmt: skip

# Beside a Content-Length: each of these once let a request through some pair of parsers.
_BESIDE_LENGTH = [
    b"Transfer-Encoding: chunked", b"transfer-encoding: chunked", b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: \t chunked \t",
    b"TRANSFER-ENCODING: CHUNKED",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked",
    b"\tTransfer-Encoding: chunked", b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding\r\n: chunked", b"Transfer-Encoding\x00: chunked",
    b"Transfer-Encoding\x0b: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
    b"Transfer-Encoding\xa0: chunked", b"\x00Transfer-Encoding: chunked",
]  # fmt: skip

_HOSTS = [
    b"a b", b"a\tb", b"a/b", b"a\\b", b"a?b", b"a#b", b"u@a", b"u:p@a", b"a:x", b"a:80:80", b"[::1",
    b"::1", b"[::1]x", b"http://a", b"a\x80", b"<a>", b'"a"', b"a^b", b"a|b", b"{a}", b"a:-1",
    b"a, a", b"a%", b"a%zz", b"a%2", b"[zz]", b"[]", b"[::1%eth0]", b"[v.a]", b"[v1.]", b"[a]:80a",
]  # fmt: skip

# What stands where a chunk of five bytes ends.
_CHUNK_ENDS = [
    b"\r\r", b"\n\r", b"\n\n", b"\r ", b" \r\n", b"\x00\n", b"X\n", b"\rX", b"  ", b"", b"\r",
    b"\n", b"\r\n\r\n", b"\r\n\n", b"\t\r\n", b";a\r\n", b"\x0b\r\n", b"\r\r\n",
]  # fmt: skip

# A request whose line ends are marked; each of them is broken in several ways.
_LINES = [b"POST /p HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked", b""]


def _tables() -> dict[str, tuple[bytes, set[int]]]:
    made: dict[str, tuple[bytes, set[int]]] = {}
    body = b"0\r\n\r\n"
    for index, version in enumerate(_VERSIONS):
        made[f"version-{index}"] = (_head(b"GET / " + version) + AFTER, _BAD)
    for version in (b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9"):
        made[f"version-{version.decode()}"] = (_head(b"GET / " + version) + AFTER, {505})
    for index, length in enumerate(_LENGTHS):
        made[f"length-{index}"] = (
            POST + b"Content-Length:" + length + b"\r\n\r\nhello" + AFTER,
            _BAD,
        )
    for index, coding in enumerate(_CODINGS):
        made[f"coding-{index}"] = (
            POST + b"Transfer-Encoding:" + coding + b"\r\n\r\n" + body + AFTER,
            _BAD,
        )
    for coding in (b"gzip, chunked", b"deflate,chunked", b"x-cow, gzip , chunked"):
        made[f"coding-{coding.decode()}"] = (
            POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + body + AFTER,
            {501},
        )
    for index, field in enumerate(_BESIDE_LENGTH):
        for name, fields in (
            ("before", field + b"\r\nContent-Length: 5\r\n"),
            ("behind", b"Content-Length: 5\r\n" + field + b"\r\n"),
        ):
            made[f"length-{name}-coding-{index}"] = (
                POST + fields + b"\r\n" + body + AFTER,
                {400, 501},
            )
    for index, host in enumerate(_HOSTS):
        made[f"host-{index}"] = (_head(fields=b"Host: " + host + b"\r\n") + AFTER, _BAD)
    for index, end in enumerate(_CHUNK_ENDS):
        made[f"chunk-end-{index}"] = (CHUNKED + b"5\r\nhello" + end + body + AFTER, _BAD)
    for size in (b"100001", b"7fffffff", b"ffffffff", b"100000000", b"7fffffffffffffff",
                 b"8000000000000000", b"ffffffffffffffff"):  # fmt: skip
        # More than a body may have, whatever a parser of 32 or 64 bits makes of it.
        made[f"chunk-size-{size.decode()}"] = (
            CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n" + AFTER,
            {413},
        )
    for index, line in enumerate(_REQUEST_LINES):
        made[f"request-line-{index}"] = (_head(line) + AFTER, _BAD)
    for field in (b"Content-Length: 5", b"transfer-encoding: chunked", b"HOST: b", b"Upgrade: h2c",
                  b"Connection: close", b"TE: trailers", b"Trailer: X"):  # fmt: skip
        name = field.partition(b":")[0].decode().lower()
        made[f"trailer-{name}"] = (CHUNKED + b"0\r\nX: y\r\n" + field + b"\r\n\r\n" + AFTER, _BAD)
    for at in range(len(_LINES)):
        for index, end in enumerate((b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n ", b"\x00\r\n")):
            lines = [line + b"\r\n" for line in _LINES]
            lines[at] = _LINES[at] + end
            made[f"line-{at}-ends-{index}"] = (b"".join(lines) + body + AFTER, {400, 501})
    return made


def _without_repeats() -> dict[str, tuple[bytes, set[int]]]:
    seen = {wire for wire, _ in MALFORMED.values()}
    made: dict[str, tuple[bytes, set[int]]] = {}
    for name, (wire, statuses) in (_octets() | _tables()).items():
        if wire not in seen:
            seen.add(wire)
            made[name] = (wire, statuses)
    return made


TORTURE = _without_repeats()
