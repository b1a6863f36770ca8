"""
Echo with asyncio streams on uvloop.
"""

from __future__ import annotations

import uvloop
from _asyncio_echo import run

run("streams", uvloop.new_event_loop)
