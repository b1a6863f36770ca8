"""
Echo with one greenlet per connection on gevent.
"""

from __future__ import annotations

import socket

from _entry import HOST, RECV_BYTES_MAX, announce, arguments
from gevent.server import StreamServer
from gevent.socket import socket as Socket  # noqa: N812 - it is a class


def echo(connection: Socket, _address: object) -> None:
    """
    Echo one connection.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(RECV_BYTES_MAX):
        connection.sendall(data)


arguments()
server = StreamServer((HOST, 0), echo, backlog=1024)
server.start()
announce(server.server_port)
server.serve_forever()
