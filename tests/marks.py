"""Marks that several test modules use."""

import pytest

from tests.backends import LIBRARY
from tests.kernel import uring_refusal

__all__ = ["needs_pending_errors", "needs_uring"]

# A kernel's kqueue tells a socket's error and leaves it for the next call, which says what failed.
needs_pending_errors = pytest.mark.skipif(
    LIBRARY, reason="libkqueue takes a socket's pending error in order to report it"
)

needs_uring = pytest.mark.skipif(
    uring_refusal() is not None, reason=f"no io_uring here: {uring_refusal()}"
)
