"""
``uringio cp``: files and trees copied, as ``cp -a`` does it.

A copy is whole or not there: a file whose copying fails or is interrupted is removed, and one that
takes the place of another is made under a name of ours (``.uringio-*``) and renamed.  What fails is
one line on standard error; the rest is copied all the same.
"""

import os
import signal
import stat
import sys
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

import uringio
from uringio.errors import UnsupportedError
from uringio.fs import Progress
from uringio.fs._comparing import Comparison, DifferenceError
from uringio.fs._replica import Replica

from .backends import in_one_line
from .descriptors import raise_descriptor_limit
from .meter import Census, Meter, make_meter
from .quoting import quoted

__all__ = ["Options", "cp"]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Options(NamedTuple):
    """What the command was asked for; see its help."""

    sources: tuple[str, ...]
    target: str
    backend: str
    verify: bool
    is_quiet: bool


def cp(options: Options) -> int:
    """Copy, and return the exit status."""
    raise_descriptor_limit()  # a tree that is deep is open to its depth
    run = _Run(options)
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # Ended in order, as by Ctrl-C: or an incomplete file would be left.
        received.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    # What is ignored, as by nohup, stays ignored.
    wanted = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    before = {number: signal.signal(number, interrupt) for number in wanted}
    try:
        uringio.run(run.run, backend=options.backend)
    except (OSError, UnsupportedError) as error:
        print(f"uringio cp: {in_one_line(error, options.backend)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        run.meter.close()
        print("uringio cp: interrupted", file=sys.stderr)
        return 128 + (received[0] if received else signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return int(run.failures_count > 0)


class _Run:
    """One run of the command."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._told: set[str] = set()
        self._begun: set[bytes] = set()
        self.failures_count = 0
        self.meter: Meter = make_meter(options.is_quiet)

    async def run(self) -> None:
        pairs = self._pairs()
        census = Census()
        try:
            self.meter.begin("copying", census)
            async with uringio.TaskGroup() as group:
                if self.meter.wants_totals:
                    group.start_soon(census.take, [source for source, _ in pairs])
                for source, target in pairs:
                    await self._copy(source, target)
                census.stop()
            self.meter.end()
            if self._options.verify and pairs:
                await uringio.offload(os.sync)  # what is not on the device cannot be read from it
                self.meter.begin("verifying", census)
                for source, target in pairs:
                    walk = Comparison(progress=self._progress(), on_error=self._fail)
                    await walk.run(source, target)
                self.meter.end()
        finally:
            census.stop()
            self.meter.close()

    async def _copy(self, source: bytes, target: bytes) -> None:
        is_root = os.geteuid() == 0
        walk = Replica(
            exist_ok=True,
            ownership=is_root,
            specials=True,
            links=True,
            progress=self._progress(),
            on_error=self._fail,
        )
        await walk.run(source, target)

    def _progress(self) -> Callable[[Progress], object] | None:
        """Return what hears of the progress of one source; they add up."""
        if not self.meter.wants_totals:
            return None
        meter = self.meter
        bytes_before, files_before = meter.done_bytes, meter.done_files

        def hear(progress: Progress) -> None:
            meter.update(
                bytes_before + progress.total_bytes,
                files_before + progress.file_count,
                progress.path,
            )

        return hear

    # --- what is copied to where -----------------------------------------------------------------

    def _pairs(self) -> list[tuple[bytes, bytes]]:
        """Return the sources and the names of their copies; tells what cannot be."""
        target = os.fsencode(self._options.target)
        sources = [os.fsencode(source) for source in self._options.sources]
        into_folder = os.path.isdir(target)
        if len(sources) > 1 and not into_folder:
            what = "Not a directory" if os.path.lexists(target) else "No such file or directory"
            self._tell(f"target {quoted(target)}: {what}")
            return []
        pairs: list[tuple[bytes, bytes]] = []
        for source in sources:
            place = target
            if into_folder:
                name = os.path.basename(source.rstrip(b"/"))
                place = os.path.join(target, b"." if name in {b"", b".", b".."} else name)
            try:
                refusal = self._refusal(source, place, into_folder)
                if not into_folder and os.path.islink(target):
                    place = os.path.realpath(target)  # as cp does, but only here: never in a tree
            except ValueError as error:  # an embedded NUL
                refusal = f"cannot copy {quoted(source)}: {error}"
            if refusal:
                self._tell(refusal)
            else:
                self._begun.add(place)
                pairs.append((source, place))
        return pairs

    def _refusal(self, source: bytes, place: bytes, into_folder: bool) -> str:
        """Return why *source* cannot become *place*, in the words of cp(1), or nothing."""
        ours, theirs = quoted(source), quoted(place)
        try:
            status = os.stat(source) if source.endswith(b"/") else os.lstat(source)
        except OSError as error:
            return f"cannot copy {ours}: {error.strerror}"
        if place in self._begun:
            return f"will not overwrite just-created {theirs} with {ours}"
        is_folder = stat.S_ISDIR(status.st_mode)
        if source.endswith(b"/") and not is_folder:
            return f"cannot copy {ours}: Not a directory"
        if place.endswith(b"/") and not is_folder:
            return f"cannot create {theirs}: Not a directory"
        if not place:
            return f"cannot create {theirs}: No such file or directory"
        try:
            there = os.lstat(place) if into_folder else os.stat(place)
        except OSError:
            if not into_folder and os.path.islink(place):
                return f"not writing through dangling symlink {theirs}"
            return ""
        if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
            return f"{ours} and {theirs} are the same file"
        if is_folder and not stat.S_ISDIR(there.st_mode):
            return f"cannot overwrite non-directory {theirs} with directory {ours}"
        if not is_folder and stat.S_ISDIR(there.st_mode):
            return f"cannot overwrite directory {theirs} with non-directory {ours}"
        return ""

    # --- what went wrong -------------------------------------------------------------------------

    def _fail(self, error: OSError) -> None:
        source, reason = error.filename, error.strerror
        key = os.fsdecode(source)
        if isinstance(error, DifferenceError):
            self._tell(f"{quoted(source)}: {reason}")
        elif key not in self._told:  # when verified, what was not copied is missed once more
            if error.filename2 is not None:
                self._tell(f"cannot copy {quoted(source)} to {quoted(error.filename2)}: {reason}")
            else:
                self._tell(f"cannot copy {quoted(source)}: {reason}")
        self._told.add(key)

    def _tell(self, line: str) -> None:
        self.failures_count += 1
        self.meter.tell(f"uringio cp: {line}")
