"""Child processes where there are no pidfds: a kqueue tells of their ends, on every backend."""

import asyncio

import pytest

from tests.backends import LIBRARY
from uringio import aio
from uringio._sys.kqueue import Kevent
from uringio._sys.system import real_system


class _Kept:
    """A kqueue that notes what it is asked for."""

    def __init__(self) -> None:
        self._kqueue = real_system().kqueue()
        self.watched: list[int] = []

    def control(self, changes: list[Kevent]) -> list[Kevent]:
        self.watched += [change.ident for change in changes]
        return self._kqueue.control(changes)

    def detach(self) -> int:
        return self._kqueue.detach()

    def close(self) -> None:
        self._kqueue.close()


@pytest.mark.skipif(LIBRARY, reason="libkqueue gives out the write end of a pipe as its descriptor")
@pytest.mark.parametrize("backend", ["kqueue", "poll"])
def test_a_kqueue_tells_of_a_child(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's subprocesses end with their status, told by EVFILT_PROC, without a thread."""
    kept = _Kept()

    def no_thread(_function: object) -> None:
        raise AssertionError("a thread waits for the child")

    async def main() -> int:
        with monkeypatch.context() as patched:
            patched.setattr(real_system(), "pidfd_open", None)
            patched.setattr(real_system(), "kqueue", lambda: kept)
            patched.setattr(real_system(), "start_thread", no_thread)
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
            assert await process.wait() == 3
        return process.pid

    try:
        assert kept.watched == [aio.run(main(), backend=backend)]
    finally:
        kept.close()
