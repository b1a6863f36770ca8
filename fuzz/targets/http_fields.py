"""Values of request fields: ranges, dates, codings and conditions of any bytes are read or left."""

from fuzz.choices import Choices
from uringio.proto import codings, ranges, validators

NAMES = (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
YEAR_9999_SECONDS = 253_402_300_800


def run(data: bytes) -> None:
    choices = Choices(data[::-1])
    size = choices.below(65_536)
    found = ranges.parse_ranges(data, size)
    if found is not None:
        assert all(0 <= start < stop <= size for start, stop in found)
        assert sum(stop - start for start, stop in found) <= size
    date = validators.parse_http_date(data)
    if date is not None:
        assert date < YEAR_9999_SECONDS
        assert validators.parse_http_date(data) == date
    accepted = codings.acceptable_codings(data)
    assert set(accepted) <= set(codings.SUFFIXES)
    assert len(set(accepted)) == len(accepted)
    tag = b'"1-2"'
    fields = {name: data for name in NAMES if choices.below(2)}
    status = validators.verdict(fields, tag, choices.number(4))
    assert status in {200, 304, 412}
    assert fields or status == 200
    assert isinstance(validators.range_holds(data, tag, 0), bool)
