"""
``uringio bench uvicorn``: what a web server costs per request, on our loop and on others.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from .accounting import usage
from .asking import Entrant, Request, Suite, run
from .findings import Answer, Budget, Question
from .options import bounded, counted_connections, heap_modes
from .rivals import SERVERS, AbsentError
from .rounds import rotated
from .sample import HEAPS, MissingError, SampleError, serving

_PARSERS = ("h11", "httptools")
_LOOPS = {
    "uringio-aio": ("uringio", ()),
    "uringio-aio-epoll": ("uringio", ("--backend=epoll",)),
    "uvloop": ("uvloop", ()),
    "asyncio": ("asyncio", ()),
}
_BODY = b"Hello, world!\n"
_CONNECTIONS = 50
_BUDGETS = tuple(
    Budget(f"{parser}-{heap}", "uringio-aio", "uvloop", 1.0)
    for parser in _PARSERS
    for heap in HEAPS
)
"""At least uvloop's requests per CPU second is at most its CPU per request."""
_HELP = """\
uvicorn with h11 and with httptools under wrk, on our loop, uvloop and asyncio's own:
server CPU per request, and requests per second of it.
"""
_ABOUT = """
<p>In every round every contender gets a fresh uvicorn on one processor, one request whose answer is
looked at, a warm-up, and then <code>wrk</code> with one thread on the other processor. What is
compared is the server's CPU per request, all its threads, between the last moment before
<code>wrk</code> starts and the first after it has ended: less is better, and <i>per CPU second</i>
is the same the other way round. Requests per second of the clock are shown beside it.</p>
<p><b>fresh</b> leaves glibc's allocator as a young process has it; <b>steady</b> raises its mmap
and trim thresholds for everyone.</p>
"""


class _WebRequest(Request):
    connections: int
    seconds: int
    warm: int
    heap: list[str]


def main(argv: Sequence[str]) -> int:
    """
    Measure, or read, and show; the exit status of the command.

    Raises:
        SystemExit: The arguments are wrong, or help was asked for.
    """
    return run(_SUITE, argv)


def _ask(request: _WebRequest, entrant: Entrant, index: int) -> list[Answer]:
    found: list[Answer] = []
    for heap in request.heap:
        for parser in rotated(_PARSERS, index):
            name = f"{parser}-{heap}"
            try:
                value, beside = _sample(request, entrant.name, parser, heap)
            except MissingError as reason:
                raise AbsentError(str(reason)) from None
            found.append(Answer(name, entrant.name, index, value, beside))
    return found


def _sample(
    request: _WebRequest, contender: str, parser: str, heap: str
) -> tuple[float, dict[str, float]]:
    loop, more = _LOOPS[contender]
    seconds_max = request.warm + request.seconds + 60
    command = [
        *(sys.executable, str(SERVERS / "uvicorn_app.py"), f"--loop={loop}", f"--http={parser}"),
        *(*more, f"--cpu={request.cpus[0]}", f"--seconds-max={seconds_max}"),
    ]
    with serving(command, heap) as server:
        try:
            _check(server.port)
            if request.warm:
                _wrk(request, server.port, request.warm)
            before = usage(server.pid)
            requests, per_second = _wrk(request, server.port, request.seconds)
            used = usage(server.pid).since(before)
        except (OSError, http.client.HTTPException) as failure:
            raise SampleError(f"{failure}; server said: {server.last_words()}") from failure
    cost_us = used.cpu_ns / 1000 / requests
    return cost_us, {
        "per CPU s": 1e6 / cost_us,
        "per s": per_second,
        "busy %": used.cpu_ns / 1e7 * per_second / requests,
    }


def _check(port: int) -> None:
    """
    Look at one answer: who says something else is not compared.
    """
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("GET", "/")
        answer = client.getresponse()
        body = answer.read()
    finally:
        client.close()
    if answer.status != 200 or body != _BODY:
        raise SampleError(f"the server answered {answer.status} with {len(body)} bytes")


def _wrk(request: _WebRequest, port: int, seconds: int) -> tuple[int, float]:
    """
    Return how many requests were answered, and how many in a second.
    """
    cpu = request.cpus[1]
    done = subprocess.run(
        [
            *("wrk", "-t1", f"-c{request.connections}", f"-d{seconds}s", "--timeout", "10s"),
            f"http://127.0.0.1:{port}/",
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", done.stdout)
    if done.returncode or found is None or int(found[1]) == 0:
        raise SampleError(f"wrk: {(done.stderr or done.stdout).strip()[-200:]}")
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SampleError("wrk met errors: " + done.stdout.strip().splitlines()[-3].strip())
    took = float(found[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[found[3]]
    return int(found[1]), int(found[1]) / took


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=counted_connections, default=_CONNECTIONS)
    parser.add_argument(
        "--seconds", type=_whole_seconds, default=2, help="of a sample (default: %(default)s)"
    )
    parser.add_argument(
        "--warm", type=_warm_seconds, default=1, help="before it (default: %(default)s)"
    )
    parser.add_argument("--heap", type=heap_modes, default=list(HEAPS), help="fresh,steady")


def _whole_seconds(text: str) -> int:
    return int(bounded(text, 1, 60))  # wrk takes no parts of one


def _warm_seconds(text: str) -> int:
    return int(bounded(text, 0, 60))


def _questions(request: _WebRequest) -> list[Question]:
    return [
        Question(
            f"{parser}-{heap}",
            f"uvicorn with {parser}, {heap} heap, {request.connections} connections",
            "CPU us",
            ("per CPU s", "per s", "busy %"),
        )
        for heap in request.heap
        for parser in _PARSERS
    ]


def _settings(request: _WebRequest) -> dict[str, object]:
    return {
        "connections": request.connections,
        "window": f"{request.seconds} s after {request.warm} s of warm-up",
        "processors": f"server {request.cpus[0]}, wrk {request.cpus[1]}",
    }


def _blocked() -> str | None:
    return None if shutil.which("wrk") else "no wrk on PATH, which is the load"


_SUITE = Suite(
    name="uvicorn",
    title="uringio beside its rivals: uvicorn",
    about=_ABOUT,
    help=_HELP,
    entrants=[
        Entrant(name, ("uvicorn", "httptools", *(("uvloop",) if name == "uvloop" else ())))
        for name in _LOOPS
    ],
    rounds=10,
    request=_WebRequest,
    arguments=_arguments,
    questions=_questions,
    settings=_settings,
    ask=_ask,
    budgets=_BUDGETS,
    blocked=_blocked,
)
