"""
Echo with an asyncio Protocol on uringio's asyncio loop.
"""

from __future__ import annotations

from _asyncio_echo import run

import uringio.aio

run("protocol", uringio.aio.new_event_loop)
