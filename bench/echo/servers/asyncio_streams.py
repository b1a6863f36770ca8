"""
Echo with asyncio streams on asyncio's own loop.
"""

from __future__ import annotations

from _asyncio_echo import run

run("streams", None)
