"""Ancillary data: any bytes give items that lie within them; what we encode decodes to the same."""

from fuzz.choices import Choices
from uringio._driver.messages import Ancillary, _unpack_control, pack_control


def run(data: bytes) -> None:
    found = list(_unpack_control(data))
    assert sum(16 + len(item.data) for item in found) <= len(data)
    choices = Choices(data)
    items: list[Ancillary] = []
    while choices:
        level, kind = choices.number(2), choices.number(2)
        items.append(Ancillary(level, kind, choices.take(choices.below(30))))
    assert list(_unpack_control(pack_control(items))) == items
