"""
Which backends the tests run on.

``make test BACKEND=poll`` (the environment variable ``URINGIO_TEST_BACKEND``) takes that one alone;
otherwise it is io_uring and epoll, and in the driver's own suite every one there is.
"""

import os
import sys

__all__ = ["BACKENDS", "CHOSEN", "LIBRARY"]

# On Linux there is no kqueue but in a library; without one, it is played by epoll.
if sys.platform == "linux":
    os.environ.setdefault("URINGIO_KQUEUE_LIBRARY", "emulated")

LIBRARY = os.environ.get("URINGIO_KQUEUE_LIBRARY", "emulated") != "emulated"

CHOSEN = os.environ.get("URINGIO_TEST_BACKEND", "")
BACKENDS = (CHOSEN,) if CHOSEN else ("uring", "epoll")
