"""Ports that nobody else is going to be given."""

import random
import socket

__all__ = ["own_port"]

# Below what Linux gives out by itself (ip_local_port_range), also to the suite beside this one.
_FIRST, _LAST = 20_000, 32_000


def own_port() -> int:
    """Return a TCP port that is free now, for IPv4 and IPv6, and that only its taker asks for."""
    pick = random.SystemRandom()
    while True:
        port = pick.randrange(_FIRST, _LAST)
        try:
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with socket.socket(family) as probe:
                    probe.bind((host, port))
        except OSError as error:
            if error.errno != 98:  # EADDRINUSE; without IPv6, what is free for IPv4 will do
                return port
        else:
            return port
