"""Marks that several test modules use."""

import pytest

from tests.kernel import uring_refusal

__all__ = ["needs_uring"]

needs_uring = pytest.mark.skipif(
    uring_refusal() is not None, reason=f"no io_uring here: {uring_refusal()}"
)
