"""Every asyncio test below this folder runs on uringio's event loop."""

import asyncio
from collections.abc import Callable

import pytest

import uringio.aio


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uringio": uringio.aio.new_event_loop}
