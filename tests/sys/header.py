"""
Ask the C compiler what the kernel's headers say.

Where there is no compiler or no <linux/io_uring.h>, `evaluate` skips the calling test and says why.
What the installed headers are too old to know comes back as None.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

INCLUDES = (
    "stdio.h",
    "stddef.h",
    "signal.h",
    "sys/epoll.h",
    "sys/socket.h",
    "sys/syscall.h",
    "sys/uio.h",
    "netinet/in.h",
    "netinet/tcp.h",
    "netinet/udp.h",
    "poll.h",
    "fcntl.h",
    "linux/futex.h",
    "linux/io_uring.h",
    "linux/openat2.h",
    "linux/stat.h",
    "linux/time_types.h",
)

# Where there are such.
OPTIONAL_INCLUDES = ("linux/blkdev.h", "linux/io_uring/bpf_filter.h", "linux/io_uring/query.h")

FIRST_LINE = 1000  # of the expressions, whatever precedes them


def evaluate(expressions: Iterable[str]) -> dict[str, int | None]:
    """Return the value of each C integer expression, None where the compiler does not know it."""
    wanted = list(dict.fromkeys(expressions))
    known: dict[str, int | None] = dict.fromkeys(wanted)
    with tempfile.TemporaryDirectory() as folder:
        compiler = _compiler(folder)
        remaining = wanted
        while unknown := _rejected(compiler, folder, remaining):
            remaining = [one for one in remaining if one not in unknown]
        known.update(_run(compiler, folder, remaining))
    return known


def names() -> tuple[set[str], set[str]]:
    """Return the numbers and the structures that <linux/io_uring.h> and its like define."""
    with tempfile.TemporaryDirectory() as folder:
        compiler = _compiler(folder)
        source = Path(folder) / "names.c"
        headers = ("linux/io_uring.h", "linux/io_uring/bpf_filter.h", "linux/io_uring/query.h")
        source.write_text(
            "".join(f"#if __has_include(<{one}>)\n#include <{one}>\n#endif\n" for one in headers)
        )
        expanded, macros = (
            subprocess.run(
                [compiler, "-E", *options, str(source)], capture_output=True, text=True, check=True
            ).stdout
            for options in ((), ("-dM",))
        )
    # Only what stands in these headers, and not in those that they include.
    own, inside = [], False
    for line in expanded.splitlines():
        if line.startswith("# "):
            inside = "/io_uring" in line
        elif inside:
            own.append(line)
    text = "\n".join(own)
    numbers = {
        name
        for body in re.findall(r"enum\s*\w*\s*\{([^}]*)\}", text)
        for name in re.findall(r"(?:^|,)\s*([A-Z]\w*)", body)
    }
    numbers |= set(re.findall(r"#define ((?:IO|ZCRX|SOCKET_URING)\w+) \S", macros))
    return numbers, set(re.findall(r"struct (\w+) \{", text))


def _compiler(folder: str) -> str:
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            break
    else:
        pytest.skip("no C compiler on PATH")
    problem = _compile(path, folder, [], "-fsyntax-only")
    if problem:
        pytest.skip(f"the C compiler cannot use the kernel's headers: {problem.splitlines()[0]}")
    return path


def _rejected(compiler: str, folder: str, expressions: list[str]) -> set[str]:
    problem = _compile(compiler, folder, expressions, "-fsyntax-only")
    lines = {int(number) for number in re.findall(r"probe\.c:(\d+):\d+: error", problem)}
    rejected = {expressions[line - FIRST_LINE] for line in lines if line >= FIRST_LINE}
    assert bool(rejected) == bool(problem), problem
    return rejected


def _run(compiler: str, folder: str, expressions: list[str]) -> dict[str, int]:
    program = Path(folder) / "probe"
    problem = _compile(compiler, folder, expressions, "-o", str(program))
    assert not problem, problem
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    values = [int(line) for line in printed.split()]
    return dict(zip(expressions, values, strict=True))


def _compile(compiler: str, folder: str, expressions: list[str], *options: str) -> str:
    source = Path(folder) / "probe.c"
    text = "#define _GNU_SOURCE\n"
    text += "".join(f"#include <{name}>\n" for name in INCLUDES)
    text += "".join(
        f"#if __has_include(<{name}>)\n#include <{name}>\n#endif\n" for name in OPTIONAL_INCLUDES
    )
    text += f'int main(void) {{\n#line {FIRST_LINE} "probe.c"\n'
    text += "".join(f'printf("%lld\\n", (long long)({one}));\n' for one in expressions)
    source.write_text(text + "return 0; }\n", encoding="ascii")
    command = [compiler, "-w", *options, str(source)]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    return "" if ran.returncode == 0 else ran.stderr or "it failed without a word"
