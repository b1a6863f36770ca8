"""Copying trees: what is done with each thing that a walk finds."""

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ._content import Content, Progress
from ._descriptor import Descriptor, in_thread
from ._tree import Folder, Large, Walk, named

if TYPE_CHECKING:
    from uringio._sys.pairs import Draft

__all__ = ["Replica"]

_LARGE_BYTES: Final = 4 << 20
_TWIN_SECONDS: Final = 0.02
# What keeps a file from getting one more name, but not from being copied.
_NO_TWIN: Final = frozenset({
    errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOENT, errno.ENAMETOOLONG, errno.EOPNOTSUPP,
})  # fmt: skip


class _Twin:
    """A file with several names: whether one is seen to, and where that is once it is complete."""

    __slots__ = ("busy", "place")

    def __init__(self) -> None:
        self.busy = True
        self.place = b""


class Replica(Walk):
    """
    A walk that copies.

    Args:
        ownership: Keep owner and group.
        specials: Make FIFOs, sockets and devices anew, rather than refuse them.
        links: Names of one file stay so.
    """

    def __init__(
        self,
        *,
        exist_ok: bool = False,
        follow_symlinks: bool = False,
        ownership: bool = False,
        specials: bool = False,
        links: bool = False,
        progress: Callable[[Progress], object] | None = None,
        on_error: Callable[[OSError], object] | None = None,
    ) -> None:
        super().__init__(
            make=True,
            exist_ok=exist_ok,
            follow_symlinks=follow_symlinks,
            progress=progress,
            on_error=on_error,
        )
        self._ownership = ownership
        self._specials = specials
        self._links = links
        self._twins: dict[tuple[int, int], _Twin] = {}
        self._refused: set[int] = set()  # devices whose filesystem shares no blocks

    def do_file(self, folder: Folder, name: bytes, target_name: bytes) -> Large | int | None:
        """Copy a file; see `Walk`."""
        pair = folder.pair
        source_fd, status = pair.open_source(name, follow=self.follow_symlinks)
        twin: _Twin | None = None
        draft: Draft | None = None
        handed_over = False
        try:
            if self._links and status.st_nlink > 1:
                twin = self._claim(status)
                if twin is None:
                    return None
                if twin.place:
                    first, twin = twin.place, None
                    if self._make_twin(folder, first, status, target_name):
                        return 0
            large = status.st_size > _LARGE_BYTES
            draft = pair.draft(source_fd, status, target_name, exist_ok=self.exist_ok, aside=large)
            path = os.path.join(folder.path, name)
            if large:
                handed_over = True
                return _LargeCopy(self, folder, path, draft, twin)
            size, refusal = self._copy_small(draft)
            place = os.path.join(folder.place, target_name)
            if refusal is not None:
                self.fail(named(refusal, path, place))
            self.settle(twin, place)
            twin = None
            return size
        finally:
            if draft is None:
                self.system.close(source_fd)
            if not handed_over:
                self.settle(twin, b"")

    def _copy_small(self, draft: "Draft") -> tuple[int, OSError | None]:
        try:
            try:
                size = self.system.copy_small(draft, self.system, self._refused)
                refusal = draft.finish(ownership=self._ownership)
            finally:
                draft.close()
        except BaseException:
            draft.undo()
            raise
        return size, refusal

    def _claim(self, status: os.stat_result) -> _Twin | None:
        """Return the twin of a file: ours to see to, or complete; None if somebody is at it."""
        key = status.st_dev, status.st_ino
        with self.condition:
            twin = self._twins.get(key)
            if twin is None or not (twin.busy or twin.place):
                twin = self._twins[key] = _Twin()
                return twin
            if twin.busy:
                self.condition.wait(_TWIN_SECONDS)
            return None if twin.busy or not twin.place else twin

    def settle(self, twin: _Twin | None, place: bytes) -> None:
        """Say where the first name of a file is, or that it could not be copied."""
        if twin is not None:
            with self.condition:
                twin.busy = False
                twin.place = place
                self.condition.notify_all()

    def _make_twin(
        self, folder: Folder, place: bytes, status: os.stat_result, target_name: bytes
    ) -> bool:
        try:
            folder.pair.make_twin(place, status, target_name, exist_ok=self.exist_ok)
        except OSError as error:
            if error.errno not in _NO_TWIN:
                raise
            return False
        return True

    def do_link(self, folder: Folder, name: bytes, target_name: bytes) -> None:
        """Make the same link; see `Walk`."""
        folder.pair.make_link(name, target_name, exist_ok=self.exist_ok, ownership=self._ownership)

    def do_special(self, folder: Folder, name: bytes, target_name: bytes) -> None:
        """Make the same FIFO, socket or device; see `Walk`."""
        if not self._specials:
            raise OSError(errno.EINVAL, "not a regular file")
        folder.pair.make_special(
            name, target_name, exist_ok=self.exist_ok, ownership=self._ownership
        )

    def leave_folder(self, folder: Folder) -> None:
        """Give the copy of a folder its metadata; see `Walk`."""
        if self.stopped:
            return
        try:
            folder.pair.keep_metadata(ownership=self._ownership)
        except OSError as error:
            error.filename2 = folder.place
            self.fail(named(error, folder.path, folder.place))

    @property
    def ownership(self) -> bool:
        """Whether owner and group are kept."""
        return self._ownership


class _LargeCopy:
    """A large file, copied by a task; see `Large`."""

    def __init__(
        self, job: Replica, folder: Folder, path: bytes, draft: "Draft", twin: _Twin | None
    ) -> None:
        self.folder = folder
        folder.acquire()
        self._job = job
        self._path = path
        self._draft = draft
        self._twin = twin
        self._source = Descriptor(draft.source_fd, job.system.close)
        self._target = Descriptor(draft.target_fd, job.system.close)
        self._complete = False
        self._closed = False

    async def run(self) -> None:
        """Copy; raises OSError."""
        draft = self._draft
        place = os.path.join(self.folder.place, draft.name)
        try:
            content = Content(
                self._job, self._path, self._source, self._target, draft.status.st_size
            )
            await content.run(draft.status)
            await in_thread(self._finish, self._source, self._target)
            self._complete = True
            self._job.settle(self._twin, place)
            self._job.finish(content)
        except OSError as error:
            raise named(error, self._path, place) from None

    def _finish(self, _source: int, _target: int) -> None:
        if self.folder.acquire():
            try:
                refusal = self._draft.finish(ownership=self._job.ownership)
                if refusal is not None:
                    place = os.path.join(self.folder.place, self._draft.name)
                    self._job.fail(named(refusal, self._path, place))
            finally:
                self.folder.release()

    def close(self) -> None:
        """Close both files, and remove the copy unless it is complete."""
        if self._closed:
            return
        self._closed = True
        if not self._complete:
            self._draft.undo()
            self._job.settle(self._twin, b"")
        self._source.release()
        self._target.release()
        self.folder.release()
