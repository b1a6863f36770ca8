"""The pytest plugin, in runs of pytest of their own."""

import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.fresh import FreshPython, FreshRun
from tests.package.programs import ROOT

# Each test starts several interpreters, which takes a while on a busy machine.
pytestmark = pytest.mark.timeout(180)
PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
# The project's own plugins stay out: they are not what is tested, and slow to load.
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}

LINES = """
    import pytest
    import uringio

    @pytest.mark.uringio(seeds=60, faults="short=0.3,delay=0.2")
    async def test_greeting():
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            near = await uringio.connect_tcp("127.0.0.1", listener.local_address[1])
            far = await listener.accept()
            async with near, far:
                await near.send_all(b"hello")
                assert await far.recv() == b"hello"  # wrong: it may come in pieces
"""


def run(
    fresh_python: FreshPython, folder: Path, text: str, *options: str, plugin: bool = True
) -> FreshRun:
    (folder / "test_users.py").write_text(textwrap.dedent(text))
    chosen = ("-p", "uringio_pytest") if plugin else ()
    return fresh_python(
        PYTEST, *chosen, "-q", *options, cwd=folder, env=ALONE, options=(), timeout_s=90.0
    )


def test_a_failing_seed_is_told_replayed_and_minimised(
    fresh_python: FreshPython, tmp_path: Path
) -> None:
    """The command that a report prints fails alone and alike; so does the minimised one."""
    first = run(fresh_python, tmp_path, LINES)
    failed = re.findall(r"^FAILED .*\[seed(\d+)\]", first.stdout, re.MULTILINE)
    assert 0 < len(failed) < 60, first.stdout
    traces = re.findall(r"^trace: (\w+)", first.stdout, re.MULTILINE)
    commands = re.findall(r"^replay: python -m pytest (.*)", first.stdout, re.MULTILINE)
    assert len(commands) == len(traces) == len(failed)
    assert f"--uringio-replay {failed[0]}" in commands[0]
    again = run(fresh_python, tmp_path, LINES, *shlex.split(commands[0]), "--uringio-minimise")
    assert "1 failed" in again.stdout
    assert "passed" not in again.stdout
    assert f"trace: {traces[0]}" in again.stdout
    told = re.search(
        r"^(\d+) faults before, 1 left after \d+ runs:\n  (short@\d+)", again.stdout, re.MULTILINE
    )
    assert told, again.stdout
    (fewer,) = re.findall(r"^replay: python -m pytest (.*)", again.stdout, re.MULTILINE)
    assert told[2] in fewer
    last = run(fresh_python, tmp_path, LINES, *shlex.split(fewer))
    assert "1 failed" in last.stdout
    assert ", 1 faults," in last.stdout


def test_seeds_profiles_and_places(fresh_python: FreshPython, tmp_path: Path) -> None:
    """Seeds come from the option, the marker or the default; profiles take turns; `on` is real."""
    program = """
        import pytest
        import uringio
        from uringio import testing

        ran = []

        @pytest.mark.uringio(seeds=3, profile=("6.18", "blocked"), faults=testing.CALM)
        async def test_marked(uringio_seed, sim_kernel):
            assert sim_kernel.profile.name == ("6.18", "blocked")[uringio_seed % 2]
            ran.append(uringio_seed)
            await uringio.sleep(600)

        def test_kernel_alone(sim_kernel):
            async def main():
                await uringio.sleep(600)
            testing.run(main, kernel=sim_kernel)
            assert sim_kernel.clock.elapsed_ns >= 600 * 10**9

        @pytest.mark.parametrize("number", [1, 2])
        @pytest.mark.uringio(seeds=2)
        async def test_with_parameters(number, sim_kernel):
            assert sim_kernel.seed < 5 and number in (1, 2)
            await uringio.sleep(1)

        @pytest.mark.uringio(on="epoll")
        async def test_real(tmp_path):
            async with await uringio.open_file(str(tmp_path / "x"), "wb") as file:
                await file.write_all(b"x")

        def test_plain():
            assert len(ran) in (3, 1, 5)
    """
    assert "19 passed" in run(fresh_python, tmp_path, program).stdout
    # 5 and 5 seeds, 2 x 5, and the two that have none
    several = run(fresh_python, tmp_path, program, "--uringio-seeds", "5")
    assert "22 passed" in several.stdout, several.stdout
    one = run(fresh_python, tmp_path, program, "--uringio-replay", "1", "-v")
    assert "6 passed" in one.stdout
    assert "seed0" not in one.stdout


def test_wrong_markers_are_refused(fresh_python: FreshPython, tmp_path: Path) -> None:
    """An option that the marker does not have would be silently nothing; so it is an error."""
    for marker, what in (
        ("seed=3", "takes faults, on, profile, seeds, by name; not seed"),
        ("'uring'", "by name; not 'uring'"),
        ("on='windows'", "runs on one of simulated, real, uring, epoll"),
    ):
        program = f"""
            import pytest

            @pytest.mark.uringio({marker})
            async def test_it():
                pass
        """
        assert what in run(fresh_python, tmp_path, program).stdout
    program = """
        import pytest

        @pytest.mark.uringio
        def test_it():
            pass
    """
    assert "is for async tests" in run(fresh_python, tmp_path, program, "-x").stdout


def test_who_does_not_use_it_does_not_pay(fresh_python: FreshPython, tmp_path: Path) -> None:
    """Loaded by its entry point, as installed, it imports neither the library nor hypothesis."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"]["pytest11"]
    info = tmp_path / "site" / "stand_in-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1\n")
    text = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[pytest11]\n{text}")
    program = """
        import sys

        def test_nothing(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("uringio_pytest")
            assert not [name for name in sys.modules if name.split(".")[0] == "uringio"]
            assert "hypothesis" not in sys.modules
    """
    (tmp_path / "test_users.py").write_text(textwrap.dedent(program))
    # Of all entry points only this one: others of this environment import what they like.
    code = f"import sys; sys.path.insert(0, {str(info.parent)!r}); {PYTEST}"
    blocked = [f"-pno:{name}" for name in _other_plugins()]
    env = {"PYTEST_ADDOPTS": ""}
    ran = fresh_python(code, "-q", *blocked, "test_users.py", cwd=tmp_path, env=env, options=())
    assert "1 passed" in ran.stdout, ran.stdout


def _other_plugins() -> list[str]:
    from importlib.metadata import entry_points

    return [one.name for one in entry_points(group="pytest11") if one.name != "uringio_pytest"]


@pytest.mark.parametrize("name", ["testing"])
def test_the_kit_needs_no_extra(fresh_python: FreshPython, name: str) -> None:
    """`uringio.testing` imports neither pytest nor hypothesis; what needs them is apart."""
    fresh_python(
        f"""
        import sys
        import uringio.{name}
        assert not {{"pytest", "hypothesis"}} & set(sys.modules)
        """
    ).check()
