"""
``uringio bench files``: random reads of 4 KiB, from the page cache and past it.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .asking import Entrant, Request, Suite, run
from .findings import Answer, Budget, Question
from .options import bounded, heap_modes, seconds_given
from .sample import HEAPS, SampleError
from .telling import told

_BLOCK_BYTES = 4096
_MIB = 1 << 20
_HELP = """\
Random reads of 4 KiB: CPU and time per read. Cached: alone, and 32 of which all end
before the next 32. O_DIRECT: as many as 32 and 128 on their way at all times. A file is made for it
and removed; where it lies decides what O_DIRECT is measured on.
"""
_ABOUT = """
<p>In every round every contender gets a fresh process on one processor, in an order that rotates,
and reads blocks of 4 KiB at random places of one file. <b>cached-1</b>: one read after another is
awaited, from the page cache. <b>cached-32</b>: 32 are asked for together, and awaited together
before the next. <b>direct-32</b> and <b>direct-128</b>: past the page cache, as many on their way
at all times. The figures are CPU time of the whole process, the kernel's part and its threads
included; those that end in <b>-time</b> are time on the clock, which is one second divided by
reads per second.</p>
<p><b>uringio</b> awaits single reads, from as many tasks as reads go on together.
<b>uringio-batch</b> awaits many at once (<code>read_many_into_at</code>), <b>uringio-fixed</b> into
registered buffers of a registered file; with O_DIRECT both have two to four batches on their way,
which together are the depth.</p>
<p><b>preadv</b> calls <code>os.preadv</code> in a loop and waits for each, into memory that is used
again: with O_DIRECT one read is on its way. <b>threads</b> is <code>loop.run_in_executor</code>
with <code>os.pread</code>. <b>fio</b> runs its io_uring engine with fixed buffers and a registered
file; <b>fio-batches</b> lets it submit and reap a quarter of the depth at a time (all of it from
the page cache). Who gives no aligned memory takes no part with O_DIRECT.</p>
"""


@dataclass(frozen=True)
class _Cell:
    """
    One way to read: from the page cache or past it, and how many at a time.
    """

    direct: bool
    depth: int
    heap: str = "fresh"

    @property
    def name(self) -> str:
        """
        What results know it by.
        """
        kind = "direct" if self.direct else "cached"
        return f"{kind}-{self.depth}{'' if self.heap == 'fresh' else f'-{self.heap}'}"

    def questions(self) -> list[Question]:
        """
        Return what is asked of it: CPU, and with O_DIRECT also time.
        """
        how = "O_DIRECT" if self.direct else "cached"
        many = "one at a time" if self.depth == 1 else f"{self.depth} at a time"
        title = f"4 KiB, {how}, {many}, {self.heap} heap"
        asked = [Question(self.name, title, "us CPU", ("us", "1000/s", "faults"))]
        if self.direct:
            asked.append(Question(f"{self.name}-time", f"{title}: time per read", "us"))
        return asked


@dataclass(frozen=True)
class _Form:
    """
    How somebody reads: a program, what it is told beside the cell, and which cells it can do.
    """

    program: str
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    is_aligned: bool = True
    """Whether its memory is fit for O_DIRECT."""
    is_single: bool = True
    """Whether it can read one block at a time."""

    def fits(self, cell: _Cell) -> bool:
        """
        Return whether it takes part in a cell.
        """
        return (self.is_aligned or not cell.direct) and (self.is_single or cell.depth > 1)


_FORMS = {
    "uringio": _Form("files_uringio.py", ("single", "default")),
    "uringio-batch": _Form("files_uringio.py", ("batch", "default"), is_single=False),
    "uringio-fixed": _Form("files_uringio.py", ("fixed", "default"), is_single=False),
    "uringio-epoll": _Form("files_uringio.py", ("single", "epoll")),
    "uringio-epoll-batch": _Form("files_uringio.py", ("batch", "epoll"), is_single=False),
    "preadv": _Form("files_preadv.py"),
    "threads": _Form("files_threads.py"),
    "aiofiles": _Form("files_aiofiles.py", needs=("aiofiles",), is_aligned=False),
    "aiofile": _Form("files_aiofile.py", needs=("aiofile",), is_aligned=False),
    "liburing": _Form("files_liburing.py", needs=("liburing",), is_aligned=False),
    "fio": _Form("files_fio.py"),
    "fio-batches": _Form("files_fio.py", ("batches",)),
}
_CACHED = ("", "-steady")
_BUDGETS = (
    *(Budget(f"cached-1{heap}", "uringio", "preadv", 1.1) for heap in _CACHED),
    *(
        Budget(f"cached-32{heap}", "uringio-fixed", rival, most)
        for heap in _CACHED
        for rival, most in (("preadv", 1.15), ("threads", 0.1), ("aiofiles", 0.1))
    ),
    *(
        Budget(f"direct-{depth}{what}", "uringio-fixed", "fio", 1 / 0.9)
        for depth in (32, 128)
        for what in ("", "-time")
    ),
)


class _Request(Request):
    folder: Path
    mib: float
    seconds: float
    heap: list[str]


class _Blocks:
    """
    The file to be read, made when it is first asked for: blocks that begin with their number.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.direct_refused: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.path is not None:
            self.path.unlink()

    def made(self, request: _Request) -> Path:
        """
        Return the path of the file, all of it on the device and in the page cache.

        Raises:
            SampleError: It cannot be made.
        """
        if self.path is None:
            try:
                fd, path = tempfile.mkstemp(prefix="uringio-bench-", dir=request.folder)
                self.path = Path(path)
                with os.fdopen(fd, "wb") as file:
                    for number in range(round(request.mib * _MIB) // _BLOCK_BYTES):
                        file.write(number.to_bytes(8, "little") * (_BLOCK_BYTES // 8))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as failure:
                raise SampleError(f"no file to read: {failure}") from None
            self.direct_refused = _direct_refused(self.path)
        return self.path


def main(argv: Sequence[str]) -> int:
    """
    Measure, or read, and show; the exit status of the command.

    Raises:
        SystemExit: The arguments are wrong, or help was asked for.
    """
    with _Blocks() as blocks:
        try:
            return run(_suite(blocks), argv)
        except SampleError as failure:
            print(f"uringio bench files: {failure}", file=sys.stderr)
            return 2


def _suite(blocks: _Blocks) -> Suite[_Request]:
    def cells(request: _Request) -> list[_Cell]:
        blocks.made(request)
        found = [_Cell(False, depth, heap) for heap in request.heap for depth in (1, 32)]
        if blocks.direct_refused is None:
            found += [_Cell(True, depth) for depth in (32, 128)]
        return found

    def settings(request: _Request) -> dict[str, object]:
        path = blocks.made(request)
        return {
            "processor": request.cpus[0],
            "file": f"{request.mib:g} MiB on {filesystem(path)}",
            "window": f"{request.seconds:g} s",
            "O_DIRECT": "measured" if blocks.direct_refused is None else blocks.direct_refused,
        }

    def ask(request: _Request, entrant: Entrant, index: int) -> list[Answer]:
        form = _FORMS[entrant.name]
        found: list[Answer] = []
        for cell in cells(request):
            if not form.fits(cell):
                continue
            if not cell.direct:
                _warm(blocks.made(request))
            arguments = (
                blocks.made(request),
                "direct" if cell.direct else "cached",
                cell.depth,
                request.seconds,
                request.seconds / 4,
                request.cpus[0],
                *form.options,
            )
            one = told(form.program, arguments, cell.heap)
            beside = {"us": one["us"], "1000/s": 1000 / one["us"], "faults": one["faults"]}
            found.append(Answer(cell.name, entrant.name, index, one["cpu_us"], beside))
            if cell.direct:
                found.append(Answer(f"{cell.name}-time", entrant.name, index, one["us"]))
        return found

    return Suite(
        name="files",
        title="uringio beside its rivals: reading files",
        about=_ABOUT,
        help=_HELP,
        entrants=[Entrant(name, form.needs) for name, form in _FORMS.items()],
        rounds=10,
        request=_Request,
        arguments=_arguments,
        questions=lambda request: [one for cell in cells(request) for one in cell.questions()],
        settings=settings,
        ask=ask,
        budgets=_BUDGETS,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    folder = Path(tempfile.gettempdir())
    parser.add_argument(
        "--folder", type=Path, default=folder, help="where the file is made (default: %(default)s)"
    )
    parser.add_argument(
        "--mib", type=_mib, default=256.0, help="its size (default: %(default)g MiB)"
    )
    parser.add_argument(
        "--seconds",
        type=seconds_given,
        default=0.3,
        help="window of a sample (default: %(default)s)",
    )
    parser.add_argument(
        "--heap", type=heap_modes, default=list(HEAPS), help="of cached reads: fresh,steady"
    )


def _mib(text: str) -> float:
    return bounded(text, 1, 1 << 20)


def _warm(path: Path) -> None:
    """
    Have the page cache hold all of the file again: some of it may have been dropped meanwhile.
    """
    with path.open("rb", buffering=0) as file:
        piece = bytearray(_MIB)
        while file.readinto(piece):
            pass


def _direct_refused(path: Path) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            os.preadv(fd, [mmap.mmap(-1, _BLOCK_BYTES)], 0)
        finally:
            os.close(fd)
    except OSError as refusal:
        return f"not measured: {filesystem(path)} does not take it ({refusal.strerror})"
    return None


def filesystem(path: Path) -> str:
    """
    Return the filesystem that *path* is on, and its device, as mountinfo tells them.
    """
    number = path.stat().st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    inside, found = "", "an unknown filesystem"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, behind = line.partition(" - ")
        device, place = fields.split()[2], fields.split()[4]
        if device == wanted:
            return " of ".join(behind.split()[:2])
        if path.resolve().is_relative_to(place) and len(place) >= len(inside):
            # Some give each file system or subvolume a number that mountinfo has not.
            inside, found = place, " of ".join(behind.split()[:2])
    return found
