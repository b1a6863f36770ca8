"""What a client has, wants a part of, or takes compressed: the header rules as pure functions."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringio.proto.codings import acceptable_codings, is_compressible
from uringio.proto.ranges import parse_ranges
from uringio.proto.static import http_date
from uringio.proto.validators import entity_tag, parse_http_date, range_holds, verdict

TAG = b'"5-a"'
WHEN = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
DATE = http_date(WHEN)


@pytest.mark.parametrize(
    "text",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
    ],
)
def test_dates_have_three_forms(text: bytes) -> None:
    """RFC 9110 section 5.6.7: one preferred, two obsolete, all understood."""
    assert parse_http_date(text) == WHEN


@pytest.mark.parametrize(
    "text",
    [
        b"", b"yesterday", b"Sun, 06 Nov 1994 08:49:37", b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 6 Nov 1994 08:49:37 GMT", b"Sun, 32 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:49:37 GMT", b"Sun, 06 Xxx 1994 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 0000 08:49:37 GMT", b"1994-11-06",
    ],
)  # fmt: skip
def test_other_dates_are_no_dates(text: bytes) -> None:
    """A malformed date is ignored, and raises nothing."""
    assert parse_http_date(text) is None


@given(st.integers(0, 253402300799))
def test_dates_go_both_ways(seconds: int) -> None:
    """What the server writes it reads back to the second."""
    assert parse_http_date(http_date(seconds)) == seconds


@given(st.binary(max_size=60))
def test_noise_is_no_date_and_no_range(noise: bytes) -> None:
    """Bytes without meaning raise nothing."""
    parse_http_date(noise)
    parse_ranges(noise, 10)
    parse_ranges(b"bytes=" + noise, 10)
    verdict({b"if-none-match": noise, b"if-modified-since": noise}, TAG, WHEN)
    verdict({b"if-match": noise}, TAG, WHEN)
    acceptable_codings(noise)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({b"if-none-match": TAG}, 304),
        ({b"if-none-match": b"W/" + TAG}, 304),
        ({b"if-none-match": b'"x", ' + TAG + b', "y"'}, 304),
        ({b"if-none-match": b"*"}, 304),
        ({b"if-none-match": b'"x"'}, 200),
        ({b"if-none-match": b'"a,b", "c"'}, 200),
        ({b"if-none-match": b"5-a"}, 200),
        ({b"if-none-match": TAG + b" garbage"}, 200),
        ({b"if-none-match": b""}, 200),
        ({b"if-modified-since": DATE}, 304),
        ({b"if-modified-since": http_date(WHEN + 1)}, 304),
        ({b"if-modified-since": http_date(WHEN - 1)}, 200),
        ({b"if-modified-since": b"never"}, 200),
        # The tag decides where both are given, either way.
        ({b"if-none-match": b'"x"', b"if-modified-since": DATE}, 200),
        ({b"if-none-match": TAG, b"if-modified-since": http_date(0)}, 304),
        ({b"if-match": TAG}, 200),
        ({b"if-match": b"*"}, 200),
        ({b"if-match": b'"x"'}, 412),
        ({b"if-match": b"W/" + TAG}, 412),
        ({b"if-match": TAG, b"if-none-match": TAG}, 304),
        ({b"if-unmodified-since": DATE}, 200),
        ({b"if-unmodified-since": http_date(WHEN - 1)}, 412),
        ({b"if-unmodified-since": b"ever"}, 200),
        ({b"if-match": TAG, b"if-unmodified-since": http_date(0)}, 200),
    ],
)
def test_conditions_are_judged_in_order(fields: dict[bytes, bytes], status: int) -> None:
    """RFC 9110 section 13.2.2, step by step."""
    assert verdict(fields, TAG, WHEN) == status


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (None, True), (TAG, True), (b"W/" + TAG, False), (b'"x"', False), (DATE, True),
        (http_date(WHEN + 1), False), (http_date(WHEN - 1), False), (b"nonsense", False),
    ],
)  # fmt: skip
def test_parts_are_of_the_same_file(value: bytes | None, holds: bool) -> None:
    """If-Range compares strongly, and a date exactly."""
    assert range_holds(value, TAG, WHEN) == holds


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        (b"bytes=0-0", [(0, 1)]),
        (b"bytes=0-9", [(0, 10)]),
        (b"bytes=3-", [(3, 10)]),
        (b"bytes=-3", [(7, 10)]),
        (b"bytes=-99", [(0, 10)]),
        (b"bytes=9-99999999999999999999999999", [(9, 10)]),
        (b"bytes=0-1,3-4", [(0, 2), (3, 5)]),
        (b"Bytes=0-1 ,\t3-4,", [(0, 2), (3, 5)]),
        (b"bytes=5-6,0-1", [(5, 7), (0, 2)]),
        (b"bytes=0-1,20-30", [(0, 2)]),
        (b"bytes=10-", []),
        (b"bytes=99999999999999999999999999-", []),
        (b"bytes=-0", []),
        (b"bytes=10-20,30-", []),
        (b"bytes=2-1", None),
        (b"bytes=a-b", None),
        (b"bytes=-", None),
        (b"bytes=", None),
        (b"bytes=,", None),
        (b"bytes", None),
        (b"bytes=1", None),
        (b"bytes=0-1,x", None),
        (b"bytes=--1", None),
        (b"bytes=+1-2", None),
        (b"bytes=1-2-3", None),
        (b"bytes=0 - 1", None),
        (b"lines=0-1", None),
        (b"bytes=0-9,0-9", None),
        (b"bytes=0-,0-,0-", None),
        (b"bytes=" + b"0-0," * 65, None),
    ],
)
def test_ranges_of_ten_bytes(value: bytes, ranges: list[tuple[int, int]] | None) -> None:
    """Parts inside the file; nothing beyond it; None for what is ignored."""
    assert parse_ranges(value, 10) == ranges


def test_an_empty_file_has_no_parts() -> None:
    """Nothing of an empty file can be asked for."""
    assert parse_ranges(b"bytes=0-", 0) == []
    assert parse_ranges(b"bytes=-5", 0) == []


@pytest.mark.parametrize(
    ("accept", "codings"),
    [
        (b"", ()),
        (b"gzip", ("gzip",)),
        (b"gzip, deflate, br, zstd", ("br", "zstd", "gzip")),
        (b"GZIP;q=1.0, br;q=0.5", ("gzip", "br")),
        (b"x-gzip", ("gzip",)),
        (b"*", ("br", "zstd", "gzip")),
        (b"*;q=0.1, gzip", ("gzip", "br", "zstd")),
        (b"br;q=0, *", ("zstd", "gzip")),
        (b"identity", ()),
        (b"gzip;q=0", ()),
        (b"gzip;q=0.000", ()),
        (b"gzip;q=2", ()),
        (b"gzip;level=9", ()),
        (b"gzipped", ()),
        (b"br ; q=0.9 ,gzip", ("gzip", "br")),
        (b"gzip;q=0.5, identity", ()),
        (b"gzip;q=0.5, br, identity;q=0.7", ("br",)),
        (b"gzip;q=0.5, identity;q=0.5", ("gzip",)),
        (b"gzip, identity;q=0", ("gzip",)),
        (b"identity;q=0, *;q=0", ()),
        (b"*;q=0", ()),
        (b"gzip" + b", x" * 1000, ()),
    ],
)
def test_codings_are_the_clients_choice(accept: bytes, codings: tuple[str, ...]) -> None:
    """By weight, then ours; zero is no; what is malformed is not asked for."""
    assert acceptable_codings(accept) == codings


def test_only_texts_are_looked_for_compressed() -> None:
    """Pictures and archives are compressed as they are."""
    assert is_compressible(b"text/html; charset=utf-8")
    assert is_compressible(b"application/json; charset=utf-8")
    assert is_compressible(b"image/svg+xml; charset=utf-8")
    assert not is_compressible(b"image/png")
    assert not is_compressible(b"application/octet-stream")


def test_tags_change_with_the_file(tmp_path: Path) -> None:
    """Another size, another time or another coding is another tag."""
    path = tmp_path / "a"
    path.write_bytes(b"a")
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    first = path.stat()
    tags = {entity_tag(first), entity_tag(first, "gzip")}
    path.write_bytes(b"ab")
    os.utime(path, ns=(now, now))
    tags.add(entity_tag(path.stat()))
    os.utime(path, ns=(now, now + 1000))
    tags.add(entity_tag(path.stat()))
    assert len(tags) == 4
    assert all(tag[:1] == tag[-1:] == b'"' for tag in tags)
