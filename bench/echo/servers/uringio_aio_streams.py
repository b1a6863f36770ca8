"""
Echo with asyncio streams on uringio's asyncio loop.
"""

from __future__ import annotations

from _asyncio_echo import run

import uringio.aio

run("streams", uringio.aio.new_event_loop)
