"""
Who takes part: how each server is started on a folder and a port.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

SERVERS = Path(__file__).resolve().parent / "servers"

_NGINX = """
daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    types {{ application/octet-stream bin; }}
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}; }}
}}
"""


@dataclass(frozen=True)
class Contender:
    """
    One server.
    """

    name: str
    script: str = ""
    options: tuple[str, ...] = ()
    backend: str = ""

    @property
    def is_ours(self) -> bool:
        """
        Whether this is a form of uringio.
        """
        return bool(self.backend)

    def command(self, folder: Path, port: int, home: Path) -> list[str]:
        """
        Return the command line.

        Args:
            folder: What is served.
            port: Where, on 127.0.0.1.
            home: An empty folder for files of the server's own.

        Raises:
            FileNotFoundError: The server is not on this machine.
        """
        if self.backend:
            return [
                *(sys.executable, "-m", "uringio", "serve", str(folder), "--port", str(port)),
                *("--backend", self.backend, "--quiet"),
            ]
        if self.script:
            return [
                *(sys.executable, str(SERVERS / self.script), str(folder), str(port)),
                *self.options,
            ]
        found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if found is None:
            raise FileNotFoundError("no nginx on PATH")
        configuration = home / "nginx.conf"
        configuration.write_text(_NGINX.format(home=home, port=port, folder=folder))
        return [found, "-c", str(configuration), "-p", str(home), "-e", str(home / "error.log")]


CONTENDERS = (
    Contender("uringio-uring", backend="uring"),
    Contender("uringio-epoll", backend="epoll"),
    Contender("http.server", "http_server.py"),
    Contender("http.server-1.1", "http_server.py", ("--keep-alive",)),
    Contender("aiohttp", "aiohttp_static.py"),
    Contender("starlette", "starlette_static.py", ("asyncio",)),
    Contender("starlette-uvloop", "starlette_static.py", ("uvloop",)),
    Contender("nginx"),
)
"""nginx runs one worker with sendfile; everybody's access log is off."""
