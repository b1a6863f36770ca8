"""A pool hands out no byte twice, keeps its bound, and gets back what is released."""

from itertools import pairwise

from fuzz.choices import Choices
from uringio._own.buffer import Buffer
from uringio._own.pool import Pool
from uringio.errors import UsageError

CLASSES = (4096, 16384, 65536)


def run(data: bytes) -> None:
    choices = Choices(data)
    pool = Pool(2 << 20, CLASSES)
    out: list[tuple[Buffer, bytes]] = []
    number = 0
    while choices:
        if choices.below(3) and len(out) < 40:
            number += 1
            size = 1 + choices.number(2) % CLASSES[-1]
            buffer = pool.allocate(size)
            if buffer is not None:
                stamp = number.to_bytes(4, "little") * 2
                buffer.write(stamp[:size])
                out.append((buffer, stamp[:size]))
        elif out:
            buffer, stamp = out.pop(choices.below(len(out)))
            assert buffer.read(0, len(stamp)) == stamp, "two buffers share memory"
            buffer.release()
            try:
                buffer.read()
            except UsageError:
                pass
            else:
                raise AssertionError("a released buffer can be read")
        spans = sorted((one.address, one.size) for one, _ in out)
        for (start, size), (following, _) in pairwise(spans):
            assert start + size <= following, "two buffers overlap"
        told = pool.stats()
        assert told.out_count == len(out)
        assert told.out_bytes <= told.reserved_bytes <= told.max_bytes
        classes = [min(each for each in CLASSES if each >= one.size) for one, _ in out]
        assert told.out_bytes == sum(classes)
    for buffer, stamp in out:
        assert buffer.read(0, len(stamp)) == stamp
        buffer.release()
    assert pool.stats().out_count == 0
