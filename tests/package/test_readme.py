"""The README's programs run as they stand."""

import random

from tests.fresh import FreshPython
from tests.package.programs import echoes, on_any_port, readme_blocks, running


def payloads() -> list[bytes]:
    return [b"x", random.randbytes(64), random.randbytes(300_000)]


def test_echo_server_runs_natively(fresh_python: FreshPython, backend: str) -> None:
    """The first program echoes every byte over each backend, and Ctrl-C ends it."""
    program = on_any_port(readme_blocks()[0])
    program = program.replace("uringio.run(main)", f"uringio.run(main, backend={backend!r})")
    assert backend in program
    with running(program, fresh_python.environment()) as address:
        for payload in payloads():
            assert echoes(address, payload) == payload


def test_echo_server_runs_with_the_default_backend(fresh_python: FreshPython) -> None:
    """The first program, with nothing changed but its port."""
    program = on_any_port(readme_blocks()[0])
    with running(program, fresh_python.environment()) as address:
        assert echoes(address, b"as it stands") == b"as it stands"


def test_echo_server_runs_under_asyncio(fresh_python: FreshPython) -> None:
    """The same `main` under the second program: an asyncio runner on our loop."""
    first, second = readme_blocks()[:2]
    program = on_any_port(first).replace("uringio.run(main)\n", second)
    assert "uringio.run" not in program
    with running(program, fresh_python.environment()) as address:
        for payload in payloads():
            assert echoes(address, payload) == payload
