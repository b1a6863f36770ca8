"""
Files: opened, read and written at offsets or where they stand, over whichever driver runs.

Every call that is one operation returns it: `open_file` and most methods of `File` give an `Op`, to
be awaited once.  Those that may take several are coroutines: `File.read_all`, `File.read_exactly`,
`File.write_all`, `open_beneath`.  Calls that name their offset may be made by any number of tasks
at once; the file's own position is one task's at a time.

Files are bytes; there is no text mode.  Regular files are what this room is for, but descriptors of
other kinds (a folder to open things in, an ``O_PATH`` handle, a FIFO) can be opened through it too.
"""

from uringio._own.aligned import aligned_buffer

from ._beneath import open_beneath
from ._file import File
from ._flags import Resolve, RWFlags
from ._iterators import Chunks, Lines
from ._open_file import OpenFile
from ._opening import open_file
from ._reading import ReadFile
from ._writing import WriteFile

__all__ = [
    "Chunks",
    "File",
    "Lines",
    "OpenFile",
    "RWFlags",
    "ReadFile",
    "Resolve",
    "WriteFile",
    "aligned_buffer",
    "open_beneath",
    "open_file",
]
