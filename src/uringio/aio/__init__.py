"""
An asyncio event loop on uringio's drivers.

`new_event_loop` goes wherever asyncio takes a loop factory: ``asyncio.Runner(loop_factory=...)``,
``asyncio.run(main(), loop_factory=...)`` from Python 3.12 on.  `run` is the short way.

Everything of `uringio` that awaits (`uringio.listen_tcp`, streams, files, `uringio.sleep`,
`uringio.offload`) works in ordinary asyncio tasks on this loop, together with
``asyncio.wait_for``, ``gather``, ``shield``, ``timeout`` and ``TaskGroup``.
"""

from .loop import EventLoop, new_event_loop, run

__all__ = ["EventLoop", "new_event_loop", "run"]
