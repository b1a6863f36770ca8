"""
What ``python -m http.server DIR`` runs, without its log.

With ``--keep-alive`` it speaks HTTP/1.1, as ``--protocol HTTP/1.1`` has it; its default is 1.0.
"""

from __future__ import annotations

import argparse
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # with the default of 5, connections are refused


parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("port", type=int)
parser.add_argument("--keep-alive", action="store_true")
options = parser.parse_args()
Quiet.protocol_version = "HTTP/1.1" if options.keep_alive else "HTTP/1.0"
with Server(("127.0.0.1", options.port), partial(Quiet, directory=options.folder)) as server:
    server.serve_forever()
