"""
What owning costs, and what not copying saves: `python -m bench.ownership`.

Messages go between two streams of one process. The sending is the same for all; what receives them
takes turns, and ratios are formed within each round. "raw" is the same loop over operations built
by hand, with nobody to say whose memory it is: one made for every message, as a raw binding does,
and one that is used over and over, as the streams do.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from uringio.cli.bench import machine
from uringio.cli.bench.rounds import Spread, rotated, spread

_SIZES = (64, 4096, 65536, 1048576)
_MEGABYTES_PER_ROUND = 96
_MESSAGES_PER_ROUND_MAX = 6000
# Against which each is held.
_BASES = {"recv_into(Buffer)": "raw, reused", "recv_lease": "recv", "raw, made anew": "raw, reused"}


def cpu_ns_per_message(
    kind: str, size: int, messages_count: int, backend: str, calls: list[int] | None = None
) -> float:
    """
    Send and receive; what a message took of the processor, and into *calls* its Python calls.
    """
    import uringio
    from uringio import Buffer, SocketStream
    from uringio._driver.op import NEW, RECV_INTO, SPENT, Op

    async def by_recv(stream: SocketStream) -> None:
        missing = size * messages_count
        while missing:
            missing -= len(await stream.recv())

    async def by_lease(stream: SocketStream) -> None:
        missing = size * messages_count
        while missing:
            with await stream.recv_lease() as view:
                missing -= len(view)

    async def by_buffer(stream: SocketStream) -> None:
        buffer = Buffer(size)
        missing = size * messages_count
        while missing:
            count, buffer = await stream.recv_into(buffer)
            missing -= count

    async def by_new_op(stream: SocketStream) -> None:
        memory, fd = Buffer(size), stream.fileno()
        address = memory.address
        missing = size * messages_count
        while missing:
            op: Op[int] = Op(RECV_INTO, fd, address, size)
            missing -= await op

    async def by_reused_op(stream: SocketStream) -> None:
        memory = Buffer(size)
        op: Op[int] = Op(RECV_INTO, stream.fileno(), memory.address, size)
        missing = size * messages_count
        while missing:
            missing -= await op
            op.state = NEW
        op.state = SPENT

    receivers: dict[str, Callable[[SocketStream], Awaitable[None]]] = {
        "recv": by_recv,
        "recv_lease": by_lease,
        "recv_into(Buffer)": by_buffer,
        "raw, made anew": by_new_op,
        "raw, reused": by_reused_op,
    }
    taken = 0.0

    async def main() -> None:
        nonlocal taken
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            near = await uringio.connect_tcp(*listener.local_address[:2])
            far = await listener.accept()
        data = bytes(size)

        async def send() -> None:
            for _ in range(messages_count):
                await near.send_all(data)

        async with near, far:
            before = time.process_time_ns()
            async with uringio.TaskGroup() as group:
                group.start_soon(send)
                group.start_soon(receivers[kind], far)
            taken = time.process_time_ns() - before

    if calls is not None:
        sys.setprofile(lambda _frame, event, _: calls.append(1) if event == "call" else None)
    try:
        uringio.run(main, backend=backend)
    finally:
        sys.setprofile(None)
    return taken / messages_count


def calls_per_message(kind: str, backend: str) -> float:
    """
    Python functions called or resumed for each further small message, the sending included.
    """
    few: list[int] = []
    many: list[int] = []
    cpu_ns_per_message(kind, 64, 100, backend, few)
    cpu_ns_per_message(kind, 64, 300, backend, many)
    return (len(many) - len(few)) / 200


def main(argv: list[str] | None = None) -> int:
    """
    Measure and print.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.ownership", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", default="uring")
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    options = parser.parse_args(argv)
    rounds = min(max(options.rounds, 1), 1000)
    described = machine.describe()
    print(machine.headline(described))
    kinds = ["recv", "recv_lease", "recv_into(Buffer)", "raw, made anew", "raw, reused"]
    results: dict[str, object] = {}
    print(f"\n{'bytes':>8}  {'received by':<18} {'CPU us':>8}  {'ratio':>6}  {'range':<12} to")
    for size in _SIZES:
        count = min(_MESSAGES_PER_ROUND_MAX, _MEGABYTES_PER_ROUND * 1048576 // size)
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for index in range(rounds + 1):
            for kind in rotated(kinds, index):
                gc.collect()
                one = cpu_ns_per_message(kind, size, count, options.backend)
                if index:  # the first warms up
                    taken[kind].append(one)
        for kind in kinds:
            cost = spread(taken[kind])
            line = f"{size:>8}  {kind:<18} {cost.median / 1000:>8.2f}"
            base = _BASES.get(kind)
            if base is not None:
                ratio: Spread = spread(
                    [mine / its for mine, its in zip(taken[kind], taken[base], strict=True)]
                )
                span = f"{ratio.low:.2f}-{ratio.high:.2f}"
                line += f"  {ratio.median:>6.2f}  {span:<12} {base}"
                results[f"{size} {kind}"] = ratio.as_dict()
            print(line)
    print("\nPython calls per message of 64 bytes, the sending included:")
    for kind in kinds:
        counted = calls_per_message(kind, options.backend)
        results[f"calls {kind}"] = counted
        print(f"  {kind:<18} {counted:.2f}")
    result = {"benchmark": "ownership", "machine": described, **results}
    print(f"\n{machine.save('ownership', result, options.json)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
