"""The file that is opened for reading and writing."""

from ._reading import ReadFile
from ._writing import WriteFile

__all__ = ["File"]


class File(ReadFile, WriteFile):
    """
    An open file, for reading and writing.

    `open_file` says by its type what the mode allows: with ``"rb"`` it gives a `ReadFile`, with
    ``"wb"`` a `WriteFile`, with ``"+"`` a `File`.  Where the mode is known only at run time, the
    kernel refuses what it does not allow (`OpError`, EBADF).
    """

    __slots__ = ()
