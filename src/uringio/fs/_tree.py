"""
Whole trees: work cut into units, done by a few threads, or by tasks where it is large.

A *unit* is a folder to be entered, or some names in one.  Each of a few tasks has a worker thread
take units from one stack, where the thread puts what it finds as well.  For a small file a call of
the kernel costs less than being told of its end, so a thread does all that a file needs, and many
files at one go; it comes back when a while has passed, for the progress to be told.  Large files
are the tasks' own: in pieces, cancelled between any two.

The stack makes it depth first, and a folder is closed as soon as all in it is done or entered: what
is open at once grows with depth at most, and each folder gets its times behind the last change in
it.
"""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from uringio._driver import current
from uringio._driver.op import Offload

from ._content import Ledger, Progress

if TYPE_CHECKING:
    from uringio._sys.pairs import FolderPair

__all__ = ["Folder", "Large", "Unit", "Walk"]

_TASKS_COUNT: Final = 4
_NAMES_COUNT: Final = 64  # in one unit
_LISTED_COUNT: Final = 2048  # at one go
_LISTING: Final = -1  # the kind of a unit that lists its folder further
_AWAY_NS: Final = 50_000_000  # how long a thread works before it reports
_IDLE_SECONDS = 5.0  # how long threads may take for what they are at when all is over
_WAIT_SECONDS: Final = 0.05  # how long it waits for work: others may need the thread


class Folder:
    """
    A pair of open folders and its users: units and threads; closed behind the last of them.

    Attributes:
        pair: The folders.
        path: Of the source.
        place: Of the copy, beneath the top.
        identities: Of the folder and those above it, where circles are possible.
    """

    __slots__ = ("_leave", "_lock", "_users_count", "identities", "pair", "path", "place")

    def __init__(
        self, pair: "FolderPair", path: bytes, place: bytes, leave: Callable[["Folder"], None]
    ) -> None:
        self.pair = pair
        self.path = path
        self.place = place
        self.identities: frozenset[tuple[int, int]] = frozenset()
        self._leave = leave
        self._lock = threading.Lock()
        self._users_count = 1

    def acquire(self) -> bool:
        """Become a user; False when it is closed already."""
        with self._lock:
            if not self._users_count:
                return False
            self._users_count += 1
            return True

    def release(self) -> None:
        """Stop being a user."""
        with self._lock:
            self._users_count -= 1
            if self._users_count:
                return
        try:
            self._leave(self)
        finally:
            self.pair.close()


class Unit(NamedTuple):
    """Names of one kind in a folder; the copy's name is given where it differs."""

    folder: Folder
    names: list[bytes]
    kind: int
    target_name: bytes | None = None


class Large(Protocol):
    """A file that a task sees to, rather than a thread."""

    folder: Folder

    async def run(self) -> None:
        """Do it; raises OSError."""
        ...

    def close(self) -> None:
        """Let go of everything, and undo what is not complete; safe to call twice."""
        ...


class Walk(Ledger):
    """
    A walk through trees, from both sides at once.

    Subclasses say what is done with what is found.  Methods with an underscore run in threads, but
    for those of tasks.

    Args:
        make: Whether folders of the copy are made.
        exist_ok: Whether they may be there.
        follow_symlinks: Take links for what they lead to.
        progress: Called by tasks.
        on_error: Called by tasks for what failed; without it, the first failure ends the walk.
    """

    def __init__(
        self,
        *,
        make: bool,
        exist_ok: bool,
        follow_symlinks: bool,
        progress: Callable[[Progress], object] | None,
        on_error: Callable[[OSError], object] | None,
    ) -> None:
        super().__init__(progress)
        self.make = make
        self.exist_ok = exist_ok
        self.follow_symlinks = follow_symlinks
        self._on_error = on_error
        self.condition = threading.Condition()
        self._units: list[Unit] = []
        self._large: list[Large] = []
        self._active_count = 0  # units and files taken and not done: they may bring more
        self._threads_count = 0
        self._failures: list[OSError] = []
        self._copied: list[tuple[bytes, int]] = []
        self._target: tuple[int, int] | None = None  # the topmost folder of the copy
        self.stopped = False

    # --- what subclasses do ----------------------------------------------------------------------

    def do_file(self, folder: Folder, name: bytes, target_name: bytes) -> Large | int | None:
        """See to a file: its size, or what a task must do, or None to come back to it later."""
        raise NotImplementedError

    def do_link(self, folder: Folder, name: bytes, target_name: bytes) -> None:
        """See to a symbolic link."""
        raise NotImplementedError

    def do_special(self, folder: Folder, name: bytes, target_name: bytes) -> None:
        """See to what is neither folder, file nor link."""
        raise NotImplementedError

    def leave_folder(self, folder: Folder) -> None:
        """See to a folder in which all else is done."""
        raise NotImplementedError

    # --- in tasks --------------------------------------------------------------------------------

    async def run(self, source: bytes, target: bytes) -> None:
        """
        See to what *source* names, and its copy with the name *target*, whose folder exists.

        Raises:
            OSError: The first failure, unless they are reported otherwise.

        Cancellation: threads finish, or undo, the one file that they are at.
        """
        try:
            if await Offload(partial(self._begin, source, target)):
                errors: list[Exception] = []
                async with current.scheduler().serving_group() as group:
                    for _ in range(_TASKS_COUNT):
                        group.spawn(self._task(errors))
                if errors:
                    raise errors[0]
            self._report()
        finally:
            self.stop()
            self._wait_idle()

    def stop(self) -> None:
        """Begin nothing more, and let go of what is not begun; from any thread."""
        with self.condition:
            self.stopped = True
            units, self._units = self._units, []
            large, self._large = self._large, []
            self.condition.notify_all()
        for one in large:
            one.close()
        for unit in units:
            unit.folder.release()

    def _wait_idle(self) -> None:
        """
        Wait, blocking, until no thread works any more.

        Only after a failure or cancellation is any at work, and at one small file: once the walk
        has returned, nothing of it goes on, and the process may end.  Bounded, for devices hang.
        """
        deadline = time.monotonic() + _IDLE_SECONDS
        with self.condition:
            while self._threads_count:
                if not self.condition.wait(deadline - time.monotonic()):
                    return

    async def _task(self, errors: list[Exception]) -> None:
        try:
            while not self.stopped and not await Offload(self._work):
                self._report()
                while (large := self._take_large()) is not None:
                    try:
                        await large.run()
                    except OSError as error:
                        self.fail(error)
                    finally:
                        large.close()
                        self._end_one()
                    self._report()
        except Exception as error:  # it is the whole walk's
            errors.append(error)
            self.stop()

    def _take_large(self) -> Large | None:
        with self.condition:
            return self._large.pop() if self._large else None

    def _report(self) -> None:
        with self.condition:
            failures, self._failures = self._failures, []
            copied, self._copied = self._copied, []
        for path, size in copied:
            self.count(path, size)
        for error in failures:
            if self._on_error is None:
                raise error
            self._on_error(error)

    # --- in threads ------------------------------------------------------------------------------

    def fail(self, error: OSError) -> None:
        """Note what failed."""
        with self.condition:
            self._failures.append(error)
        if self._on_error is None:
            self.stop()

    def _begin(self, source: bytes, target: bytes) -> bool:
        """Open the folders around source and target, and put up the first unit."""
        with self.condition:
            if self.stopped:
                return False  # cancelled before a thread was free: nobody waits for this one
            self._threads_count += 1
        try:
            return self._begin_in(source, target)
        finally:
            self._end_thread()

    def _begin_in(self, source: bytes, target: bytes) -> bool:
        folder_path, name = split_path(source)
        into, target_name = split_path(target)
        path = folder_path if name == b"." else os.path.dirname(source.rstrip(b"/"))
        place = os.path.dirname(target.rstrip(b"/"))
        top: Folder | None = None
        try:
            try:
                pair = self.system.folder_pair(folder_path, into)
            except OSError as error:
                raise named(error, source, target) from None
            top = Folder(pair, path, place, lambda _: None)
            try:
                status = pair.look(name, follow=self.follow_symlinks)
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    pair.require_apart(status, target_name)
            except OSError as error:
                raise named(error, source, target) from None
            self._put([Unit(top, [name], kind, target_name)])
        except OSError as error:
            self.fail(error)
            return False
        finally:
            if top is not None:
                top.release()
        return True

    def _work(self) -> bool:
        """Take and do units for a while; True when there will not be any more."""
        with self.condition:
            self._threads_count += 1
        try:
            until = time.monotonic_ns() + _AWAY_NS
            while True:
                unit, ended = self._take()
                if unit is None:
                    return ended
                try:
                    self._do(unit, until)
                finally:
                    unit.folder.release()
                    self._end_one()
                if self._large or time.monotonic_ns() >= until:
                    return False
        finally:
            self._end_thread()

    def _end_thread(self) -> None:
        with self.condition:
            self._threads_count -= 1
            self.condition.notify_all()

    def _take(self) -> tuple[Unit | None, bool]:
        with self.condition:
            if not self._units and self._active_count and not self._large and not self.stopped:
                self.condition.wait(_WAIT_SECONDS)
            if self._units:
                self._active_count += 1
                return self._units.pop(), False
            return None, self.stopped or not self._active_count

    def _put(self, units: list[Unit], *, last: bool = False) -> None:
        for unit in units:
            unit.folder.acquire()
        with self.condition:
            if not self.stopped:
                if last:
                    self._units[:0] = units
                else:
                    self._units += units
                self.condition.notify_all()
                return
        for unit in units:
            unit.folder.release()

    def _end_one(self) -> None:
        with self.condition:
            self._active_count -= 1
            if not self._active_count:
                self.condition.notify_all()

    def _do(self, unit: Unit, until: int) -> None:
        folder, kind = unit.folder, unit.kind
        for index, name in enumerate(unit.names):
            if self.stopped:
                return
            if index and (self._large or time.monotonic_ns() >= until):
                self._put([Unit(folder, unit.names[index:], kind)])
                return
            target_name = name if unit.target_name is None else unit.target_name
            try:
                self._do_one(folder, name, target_name, kind)
            except OSError as error:
                path, place = (
                    os.path.join(folder.path, name),
                    os.path.join(folder.place, target_name),
                )
                self.fail(named(error, path, place))

    def _do_one(self, folder: Folder, name: bytes, target_name: bytes, kind: int) -> None:
        if kind == _LISTING:
            self._list(folder)
            return
        if (kind == stat.S_IFLNK and self.follow_symlinks) or not kind:
            kind = stat.S_IFMT(folder.pair.look(name, follow=self.follow_symlinks).st_mode)
        if kind == stat.S_IFREG:
            done = self.do_file(folder, name, target_name)
            if done is None:
                self._put([Unit(folder, [name], kind, target_name)], last=True)
            elif isinstance(done, int):
                with self.condition:
                    self._copied.append((os.path.join(folder.path, name), done))
            else:
                self._put_large(done)
        elif kind == stat.S_IFDIR:
            self._enter(folder, name, target_name)
        elif kind == stat.S_IFLNK:
            self.do_link(folder, name, target_name)
        else:
            self.do_special(folder, name, target_name)

    def _put_large(self, large: Large) -> None:
        with self.condition:
            if not self.stopped:
                self._large.append(large)
                self._active_count += 1
                self.condition.notify_all()
                return
        large.close()

    def _enter(self, above: Folder, name: bytes, target_name: bytes) -> None:
        pair = above.pair.descend(
            name, target_name, make=self.make, exist_ok=self.exist_ok, follow=self.follow_symlinks
        )
        folder = Folder(
            pair,
            above.path if name == b"." else os.path.join(above.path, name),
            os.path.join(above.place, target_name),
            self.leave_folder,
        )
        try:
            identity = pair.status.st_dev, pair.status.st_ino
            if self._target is None:
                self._target = pair.target_identity()
            if identity == self._target:
                raise OSError(errno.EINVAL, "the target is inside of the source")
            if self.follow_symlinks:
                if identity in above.identities:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                folder.identities = above.identities | {identity}
            self._put([Unit(folder, [b""], _LISTING)])
        finally:
            folder.release()

    def _list(self, folder: Folder) -> None:
        """Put up the next names in *folder*, so that what is large needs not be held in memory."""
        found = folder.pair.names(_LISTED_COUNT)
        if not found:
            return
        kinds: dict[int, list[bytes]] = {}
        for one in found:
            kinds.setdefault(one.kind, []).append(one.name)
        # What is put up last is done first, and folders keep this one open.
        units = [Unit(folder, [b""], _LISTING)]
        units += [Unit(folder, [one], stat.S_IFDIR) for one in kinds.pop(stat.S_IFDIR, [])]
        for kind, names in kinds.items():
            starts = range(0, len(names), _NAMES_COUNT)
            units += [Unit(folder, names[at : at + _NAMES_COUNT], kind) for at in starts]
        self._put(units)


def split_path(path: bytes) -> tuple[bytes, bytes]:
    """Return the folder in which *path* is a name, and the name."""
    folder, name = os.path.split(path.rstrip(b"/") or b"/")
    return folder or b".", name or b"."


def named(error: OSError, path: bytes, target: bytes) -> OSError:
    """Have *error* say the path that it is about, which is the copy's if its second name is set."""
    error.filename = os.fsdecode(path)
    if error.filename2 is not None:
        error.filename2 = os.fsdecode(target)
    return error
