"""
Echo with an asyncio Protocol on asyncio's own loop.
"""

from __future__ import annotations

from _asyncio_echo import run

run("protocol", None)
