"""
How far a copy has come, shown on a terminal: with rich if it is installed, else in one plain line.

Where standard error is no terminal nothing is shown.
"""

import os
import shutil
import stat
import sys
import time
from typing import TYPE_CHECKING, Final, Protocol

import uringio

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Census", "Meter", "amount", "make_meter"]

_SHOW_SECONDS: Final = 0.1
_CENSUS_COUNT: Final = 2000  # names between two looks at whether it is wanted still


class Census:
    """
    What there is to copy, counted while the copying goes on.

    Attributes:
        files: How many so far.
        size: How much in them. [bytes]
        complete: Whether that is all.
    """

    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self.complete = False
        self._stopped = False
        self._seen: set[tuple[int, int]] = set()

    def stop(self) -> None:
        """Count no further."""
        self._stopped = True

    async def take(self, tops: list[bytes]) -> None:
        """Count, in a worker thread and a bit at a time."""
        pending = list(tops)
        while pending and not self._stopped:
            pending = await uringio.offload(self._count, pending)
        self.complete = not pending

    def _count(self, pending: list[bytes]) -> list[bytes]:
        for _ in range(_CENSUS_COUNT):
            if not pending or self._stopped:
                break
            path = pending.pop()
            try:
                self._look(path, os.lstat(path))
                if not os.path.isdir(path) or os.path.islink(path):
                    continue
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            self._look(entry.path, entry.stat(follow_symlinks=False))
            except OSError:
                continue  # whoever copies it will say so
        return pending

    def _look(self, _path: bytes, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            return
        if status.st_nlink > 1:
            identity = status.st_dev, status.st_ino
            self.files += 1
            if identity in self._seen:
                return
            self._seen.add(identity)
            self.size += status.st_size
            return
        self.files += 1
        self.size += status.st_size


class Meter(Protocol):
    """What shows the progress."""

    wants_totals: bool
    done_bytes: int
    done_files: int

    def begin(self, what: str, census: Census) -> None:
        """Show a new measure."""
        ...

    def update(self, done_bytes: int, done_files: int, path: str) -> None:
        """Show how far it has come."""
        ...

    def end(self) -> None:
        """Show what has been done in all."""
        ...

    def tell(self, line: str) -> None:
        """Print *line* on standard error, beside what is shown."""
        ...

    def close(self) -> None:
        """Stop showing; safe to call twice."""
        ...


def make_meter(is_quiet: bool) -> Meter:
    """Return what fits standard error and the installation."""
    if is_quiet or not sys.stderr.isatty():
        return _NoMeter()
    try:
        import rich.progress as _rich
    except ImportError:
        return _PlainMeter()
    del _rich
    return _RichMeter()


def amount(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


class _NoMeter:
    """Shows nothing but failures."""

    wants_totals = False
    done_bytes = 0
    done_files = 0

    def begin(self, what: str, census: Census) -> None:
        """See `Meter`."""

    def update(self, done_bytes: int, done_files: int, path: str) -> None:
        """See `Meter`."""

    def end(self) -> None:
        """See `Meter`."""

    def tell(self, line: str) -> None:
        """See `Meter`."""
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """See `Meter`."""


class _Counting:
    """What the meters on terminals share: the count, and when to show it."""

    wants_totals = True

    def __init__(self) -> None:
        self.done_bytes = 0
        self.done_files = 0
        self._what = ""
        self._census = Census()
        self._began = time.monotonic()
        self._shown = 0.0

    def begin(self, what: str, census: Census) -> None:
        """See `Meter`."""
        self.done_bytes = self.done_files = 0
        self._what = what
        self._census = census
        self._began = time.monotonic()
        self._shown = 0.0

    def update(self, done_bytes: int, done_files: int, path: str) -> None:
        """See `Meter`."""
        self.done_bytes, self.done_files = done_bytes, done_files
        now = time.monotonic()
        if now - self._shown >= _SHOW_SECONDS:
            self._shown = now
            self._show(path)

    def _show(self, path: str) -> None:
        raise NotImplementedError

    def _summary(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-6)
        files = f"{self.done_files:,} file{'' if self.done_files == 1 else 's'}"
        verb = "verified" if self._what == "verifying" else "copied"
        return (
            f"{files} {verb}, {amount(self.done_bytes)} in {seconds:.1f} s "
            f"({amount(self.done_bytes / seconds)}/s)"
        )


class _PlainMeter(_Counting):
    """One line that is written over."""

    def __init__(self) -> None:
        super().__init__()
        self._is_shown = False

    def _show(self, path: str) -> None:
        census = self._census
        parts = [f"{self.done_files:,} files", amount(self.done_bytes)]
        if census.complete:
            share = 100 * self.done_bytes // max(census.size, 1)
            parts = [
                f"{min(share, 100):3} %",
                f"{amount(self.done_bytes)} of {amount(census.size)}",
                f"{self.done_files:,} of {census.files:,} files",
            ]
        seconds = max(time.monotonic() - self._began, 1e-6)
        parts.append(f"{amount(self.done_bytes / seconds)}/s")
        columns = shutil.get_terminal_size().columns
        self._write(f"{self._what} {', '.join(parts)}"[: columns - 1])

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
        self._is_shown = bool(line)

    def end(self) -> None:
        """See `Meter`."""
        self.close()
        print(self._summary(), file=sys.stderr, flush=True)

    def tell(self, line: str) -> None:
        """See `Meter`."""
        self.close()
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """See `Meter`."""
        if self._is_shown:
            self._write("")


class _RichMeter(_Counting):
    """A bar by rich, drawn only when there is news: without a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def begin(self, what: str, census: Census) -> None:
        """See `Meter`."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        super().begin(what, census)
        self.close()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[sizes]}"),
            TextColumn("{task.fields[files]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(what, total=None, sizes="", files="")

    def _show(self, path: str) -> None:
        bar, task, census = self._bar, self._task, self._census
        if bar is None or task is None:
            return
        total = census.size if census.complete else None
        of = f"/{amount(total)}" if total is not None else ""
        files = f"{self.done_files:,} files"
        sizes = f"{amount(self.done_bytes)}{of}"
        bar.update(task, completed=self.done_bytes, total=total, sizes=sizes, files=files)
        bar.refresh()

    def end(self) -> None:
        """See `Meter`."""
        self.close()
        print(self._summary(), file=sys.stderr, flush=True)

    def tell(self, line: str) -> None:
        """See `Meter`."""
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """See `Meter`."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()
