"""Take the README's programs and run them as servers in processes of their own."""

import ast
import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
END_S = 50.0
LISTENING = "listening on "


def readme_blocks() -> list[str]:
    """Return the README's Python blocks, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def on_any_port(program: str) -> str:
    """Let the kernel choose the port, so that tests can run beside each other and beside users."""
    changed = program.replace("8000)", "0)", 1)
    assert changed != program
    return changed


@contextlib.contextmanager
def running(
    program: str, env: Mapping[str, str], python: str = sys.executable
) -> Iterator[tuple[str, int]]:
    """
    Run a server until the block ends; yield the address that it prints.

    It is then interrupted as by Ctrl-C, and must end by itself with nothing on stderr but, at most,
    the traceback of KeyboardInterrupt.
    """
    process = subprocess.Popen(
        [python, "-u", "-W", "error", "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(env),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith(LISTENING):
            process.kill()
            raise AssertionError(f"no address: {line!r}\n{process.communicate()[1]}")
        host, port = ast.literal_eval(line.removeprefix(LISTENING))
        yield host, port
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=END_S)[1]
        last = stderr.strip().rpartition("\n")[2]
        assert last in {"", "KeyboardInterrupt"}, stderr
    finally:
        process.kill()
        process.communicate()


def echoes(address: tuple[str, int], payload: bytes) -> bytes:
    """Send *payload*, half-close, and return all that comes back."""
    with socket.create_connection(address, timeout=END_S) as client:
        back = bytearray()
        # In steps, so that neither side needs to hold more than the socket buffers do.
        for start in range(0, len(payload), 65536):
            part = payload[start : start + 65536]
            client.sendall(part)
            while len(back) < start + len(part):
                back += client.recv(65536)
        client.shutdown(socket.SHUT_WR)
        while rest := client.recv(65536):
            back += rest
        return bytes(back)
