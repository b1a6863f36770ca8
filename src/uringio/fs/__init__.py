"""
Names in the filesystem: looked at, changed, listed, copied, over whichever driver runs.

What is one operation of the kernel is an `Op`, made by the ring where there is one; listing a
folder, which has no such operation, is left to worker threads.  Errors are those of `os`.
"""

from ._content import Progress
from ._copying import copy, copy_tree
from ._listing import Entry, Scan, scandir, walk
from ._names import link, mkdir, rename, rmdir, stat, symlink, unlink

__all__ = [
    "Entry",
    "Progress",
    "Scan",
    "copy",
    "copy_tree",
    "link",
    "mkdir",
    "rename",
    "rmdir",
    "scandir",
    "stat",
    "symlink",
    "unlink",
    "walk",
]
