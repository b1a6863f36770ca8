"""
Starlette's StaticFiles on uvicorn with h11; the loop as named; no access log.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.staticfiles import StaticFiles

folder, port, loop = sys.argv[1:]
if loop == "uvloop":
    import uvloop  # noqa: F401  - uvicorn would say less clearly that it is not there
uvicorn.run(
    StaticFiles(directory=folder),
    host="127.0.0.1",
    port=int(port),
    http="h11",
    loop=loop,
    lifespan="off",
    access_log=False,
    log_level="error",
)
