"""
Echo with an asyncio Protocol on uvloop.
"""

from __future__ import annotations

import uvloop
from _asyncio_echo import run

run("protocol", uvloop.new_event_loop)
