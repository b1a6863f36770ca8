"""
Which backends the tests run on.

``make test BACKEND=poll`` (the environment variable ``URINGIO_TEST_BACKEND``) takes that one alone;
otherwise it is io_uring and epoll, and in the driver's own suite every one there is.
``uring-plain`` and the other rungs of `tests.older` are io_uring, with less of it than this kernel
has.
"""

import os
import sys

__all__ = ["BACKENDS", "CHOSEN", "LIBRARY", "RUNG"]

# On Linux there is no kqueue but in a library; without one, it is played by epoll.
if sys.platform == "linux":
    os.environ.setdefault("URINGIO_KQUEUE_LIBRARY", "emulated")

LIBRARY = os.environ.get("URINGIO_KQUEUE_LIBRARY", "emulated") != "emulated"

CHOSEN = os.environ.get("URINGIO_TEST_BACKEND", "")
RUNG = ""
if CHOSEN.startswith("uring-"):
    CHOSEN, RUNG = "uring", CHOSEN
BACKENDS = (CHOSEN,) if CHOSEN else ("uring", "epoll")

# What holds a descriptor of epoll's: on Linux whatever plays kqueue(2) does so by it.
ON_EPOLL = frozenset({"epoll", "kqueue"})
