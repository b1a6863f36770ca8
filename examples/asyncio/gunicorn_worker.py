"""
gunicorn's worker for ASGI applications, on uringio's event loop.

Shows: the one method that chooses a worker's loop.

    cd examples/asyncio && gunicorn --worker-class gunicorn_worker.UringioWorker web:app
"""

import asyncio

from gunicorn.workers.gasgi import ASGIWorker

import uringio.aio


class UringioWorker(ASGIWorker):
    """An ASGI worker whose loop is uringio's."""

    def _setup_event_loop(self) -> None:
        self.loop = uringio.aio.new_event_loop()
        asyncio.set_event_loop(self.loop)
