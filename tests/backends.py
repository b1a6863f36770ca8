"""
Which backends the tests run on.

``make test BACKEND=poll`` (the environment variable ``URINGIO_TEST_BACKEND``) takes that one alone;
otherwise it is io_uring and epoll, and in the driver's own suite every one there is.
"""

import os

__all__ = ["BACKENDS", "CHOSEN"]

CHOSEN = os.environ.get("URINGIO_TEST_BACKEND", "")
BACKENDS = (CHOSEN,) if CHOSEN else ("uring", "epoll")
