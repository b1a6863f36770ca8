"""`uringio probe` where io_uring works, and where the kernel really refuses it."""

import contextlib
import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.refused import ENTER, REGISTER, SETUP, refusing
from tests.fresh import FreshPython, FreshRun
from tests.kernel import uring_refusal
from tests.marks import needs_uring

PROBE = """
import sys
from uringio.cli import main
sys.exit(main(sys.argv[1:]))
"""


def probed(python: FreshPython, before: str = "", *options: str, **env: str) -> FreshRun:
    """Probe in an interpreter that runs *before* first."""
    run = python(before + PROBE, "probe", *options, env=env)
    assert run.stderr == ""
    return run


def facts(python: FreshPython, before: str, status: int) -> dict[str, Any]:
    run = probed(python, before, "--json")
    assert run.returncode == status, run.stdout
    found = json.loads(run.stdout)
    assert isinstance(found, dict)
    return found


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (500, 600))
"""

# What may be relied upon in schema 1; see docs/probe.md.
MEMBERS = {
    "schema", "uringio", "works", "backend", "backend_reason", "refusal", "machine", "ring",
    "limits", "surface",
}  # fmt: skip


@needs_uring
def test_where_io_uring_works(fresh_python: FreshPython) -> None:
    """Status 0, the ring's own flags and operations, and the limits as the kernel has them."""
    found = facts(fresh_python, LIMITED, 0)
    assert set(found) == MEMBERS
    assert (found["schema"], found["works"], found["backend"]) == (1, True, "uring")
    assert found["refusal"] is None
    assert found["machine"]["kernel"] == os.uname().release
    assert found["limits"]["open_files"] == {"soft": 500, "hard": 600}
    assert found["limits"]["workers"]["bounded"] >= 1
    surface = found["surface"]
    assert {"NOP", "READ", "RECV"} <= set(surface["opcodes"])
    assert "PBUF_RING" in surface["register_ops"]
    assert set(found["ring"]["flags"]) <= set(surface["setup_flags"])
    assert surface["source"] in {"query", "register_probe"}
    ring = found["ring"]
    assert 1 <= ring["rung"] <= ring["rungs"]
    assert {"CQSIZE", "CLAMP"} <= set(ring["flags"])
    assert not any(flag.startswith("0x") for flag in ring["flags"])
    operations = {row["name"]: row for row in ring["operations"]}
    assert operations["IORING_OP_RECV"]["here"]
    assert operations["IORING_OP_RECV"]["serves"] == ["recv", "recv_into"]
    assert operations["IORING_OP_FTRUNCATE"]["otherwise"] == "thread"
    for name in ("IORING_OP_SEND_ZC", "IORING_OP_SENDMSG_ZC"):
        assert operations[name]["otherwise"] == "copy"


@needs_uring
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("number", [SETUP, ENTER, REGISTER])
def test_a_seccomp_filter_is_named(fresh_python: FreshPython, number: int, error: int) -> None:
    """A filter that forbids or hides any one of the calls: epoll, status 1, and the cause."""
    found = facts(fresh_python, refusing([number], error), 1)
    assert (found["works"], found["backend"], found["ring"]) == (False, "epoll", None)
    refusal = found["refusal"]
    assert (refusal["cause"], refusal["errno"]) == ("seccomp", error)
    assert refusal["error"] == errno.errorcode[error]
    assert "seccomp" in refusal["explanation"]
    assert refusal["remedies"]
    assert found["machine"]["seccomp"] == "filter"
    # Whatever the filter leaves open tells what the kernel has: set-up and enter allow to try it.
    surface = found["surface"]
    if number == REGISTER:
        assert (surface["source"], surface["register_ops"]) == ("trial", [])
    if surface is not None:
        assert {"NOP", "READ", "RECV"} <= set(surface["opcodes"])


# An ordinary user may not be able to read the interpreter's own files: all is loaded before.
ORDINARY = """
import contextlib, io, os
from uringio.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["probe", "--json"])
    main(["probe"])
if os.geteuid() == 0:
    with contextlib.suppress(PermissionError):  # root without rights is as good
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
"""
LOCKED = """
import resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
"""


@needs_uring
def test_no_memory_may_be_locked(fresh_python: FreshPython) -> None:
    """An ordinary user whose limit of locked memory leaves no room for a ring is told of it."""
    if (5, 12) <= tuple(map(int, os.uname().release.split(".")[:2])) < (6, 14):
        pytest.skip("this kernel does not count rings as locked memory")
    found = facts(fresh_python, ORDINARY + LOCKED, 2)
    assert (found["works"], found["backend"]) == (False, None)
    refusal = found["refusal"]
    assert (refusal["cause"], refusal["error"]) == ("locked_memory", "ENOMEM")
    assert "0 bytes" in refusal["explanation"]
    assert "ulimit -l" in refusal["remedies"][0]
    assert found["limits"]["locked_memory_bytes"] == {"soft": 0, "hard": 0}


SWITCHED = """
import errno
from uringio._sys.system import System
real = System.text_of
def text_of(self, path):
    name = path.rpartition("/")[2]
    answers = {{"io_uring_disabled": "{0}", "io_uring_group": "{1}"}}
    return answers.get(name) or real(self, path)
System.text_of = text_of
System.io_uring_setup = lambda self, entries, params: -errno.EPERM
"""


@pytest.mark.parametrize(
    ("setting", "group", "word"), [(2, -1, "is 2"), (1, 12345, "number 12345")]
)
def test_the_sysctl_is_named(
    fresh_python: FreshPython, setting: int, group: int, word: str
) -> None:
    """As on a machine whose administrator has switched it off: the cause, and how to undo it."""
    before = ORDINARY + SWITCHED.format(setting, group)
    found = facts(fresh_python, before, 1)
    assert (found["works"], found["backend"]) == (False, "epoll")
    assert (found["machine"]["sysctl_disabled"], found["machine"]["sysctl_group"]) == (
        setting,
        group,
    )
    assert found["refusal"]["cause"] == "sysctl"
    assert word in found["refusal"]["explanation"]
    assert any("sysctl -w" in remedy for remedy in found["refusal"]["remedies"])


@needs_uring
@pytest.mark.parametrize("number", [ENTER, REGISTER])
def test_programs_run_on_epoll_where_only_set_up_is_allowed(
    fresh_python: FreshPython, number: int
) -> None:
    """The probe tells the truth: the same filter lets `uringio.run` fall back, and leak nothing."""
    fresh_python(
        refusing([number], errno.EPERM)
        + """
import os
import uringio
from uringio._driver import current

async def main():
    await uringio.sleep(0)
    return current.driver().name

before = os.listdir("/proc/self/fd")
for _ in range(20):  # a thread may register sixteen rings
    assert uringio.run(main) == "epoll"
assert os.listdir("/proc/self/fd") == before
try:
    uringio.run(main, backend="uring")
except uringio.RingError as error:
    assert error.errno == 1, error
    assert error.remedy
else:
    raise AssertionError("the ring cannot have worked")
assert os.listdir("/proc/self/fd") == before
"""
    ).check()


@needs_uring
@pytest.mark.parametrize("spare", [0, 1, 2])
def test_no_descriptor_left(fresh_python: FreshPython, spare: int) -> None:
    """Whether the ring or the wake pipe wants one more than there are: no fallback, status 2."""
    before = f"""
import os, resource
import uringio.probing
import uringio.cli.probe
import uringio._driver.epoll
free = [os.dup(0) for _ in range({spare})]
highest = os.dup(0)
os.closerange(free[0] if free else highest, highest + 1)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
"""
    found = facts(fresh_python, before, 2)
    assert (found["works"], found["backend"]) == (False, None)
    assert (found["refusal"]["cause"], found["refusal"]["error"]) == ("descriptors", "EMFILE")
    assert "RingError" in found["backend_reason"]
    assert any("ulimit -n" in remedy for remedy in found["refusal"]["remedies"])


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("before", ["", refusing([SETUP], errno.EPERM)], ids=["as-is", "refused"])
def test_lines_fit_the_terminal(fresh_python: FreshPython, before: str, columns: int) -> None:
    """The words fit 80 and 100 columns, and use no more than 100; the answer stands first."""
    run = probed(fresh_python, before, COLUMNS=str(columns))
    lines = run.stdout.splitlines()
    assert max(map(len, lines)) <= min(columns, 100)
    assert all(line == line.rstrip() for line in lines)
    works = not before and uring_refusal() is None
    assert lines[2].startswith("io_uring works" if works else "io_uring does not work")
    assert ("What to do" in lines) == (not works)
    assert run.returncode == (0 if works else 1)


def test_the_probe_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """It may run in a process that goes on: no descriptor or thread is left behind."""
    from uringio.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(["probe", "--json"])
    assert status in (0, 1)
    assert json.loads(out.getvalue())["schema"] == 1
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_early_is_no_failure(fresh_python: FreshPython) -> None:
    """``uringio probe | head -1`` says nothing on standard error and ends with its own status."""
    before = "import os, sys\nr, w = os.pipe()\nos.close(r)\nos.dup2(w, 1)\n"
    assert probed(fresh_python, before).returncode in (0, 1)


# --- what cannot be brought about without changing the machine ----------------------------------

WORDS = [
    # errno, what decides, cause, a word that the explanation or a remedy must hold
    (errno.EPERM, {"sysctl_disabled": 2}, "sysctl", "is 2"),
    (errno.EPERM, {"sysctl_disabled": 2, "seccomp": "filter", "is_admin": True}, "sysctl", "is 2"),
    (errno.EPERM, {"sysctl_disabled": 1, "sysctl_group": -1}, "sysctl", "names no group"),
    (errno.EPERM, {"sysctl_disabled": 1, "sysctl_group": 7}, "sysctl", "group 7"),
    (
        errno.EPERM,
        {"sysctl_disabled": 1, "sysctl_group": 7, "groups": frozenset({7}), "seccomp": "filter"},
        "seccomp",
        "filter",
    ),
    (errno.EPERM, {"sysctl_disabled": 1, "is_admin": True}, "policy", "SELinux"),
    (errno.EACCES, {"sysctl_disabled": 0}, "policy", "SELinux"),
    (errno.EPERM, {"seccomp": "filter", "container": "kubernetes"}, "seccomp", "Localhost"),
    (errno.EPERM, {"seccomp": "filter", "container": "docker"}, "seccomp", "unconfined"),
    (errno.ENOSYS, {"release": "4.19.0", "seccomp": "filter"}, "too_old", "5.19"),
    (errno.ENOSYS, {"release": "6.1.0"}, "absent", "CONFIG_IO_URING"),
    (errno.ENOSYS, {"release": "6.1.0", "seccomp": "filter"}, "seccomp", "hides"),
    (errno.EINVAL, {"release": "5.10.0-21-amd64"}, "too_old", "5.10"),
    (errno.EINVAL, {"release": "6.12.0"}, "unknown", "report"),
    (errno.ENOMEM, {"release": "5.10.0", "locked_bytes": 65536}, "locked_memory", "ulimit -l"),
    (errno.ENOMEM, {"release": "6.18.4", "locked_bytes": 65536}, "locked_memory", "65536 bytes"),
    (errno.ENOMEM, {"release": "6.12.0", "locked_bytes": 65536}, "memory", "control group"),
    (errno.ENOMEM, {"release": "6.12.0"}, "memory", "control group"),
    (errno.ENFILE, {}, "descriptors", "file-max"),
    (errno.EIO, {"release": "strange"}, "unknown", "report"),
]


@pytest.mark.parametrize(("number", "around", "cause", "word"), WORDS)
def test_causes_are_told_apart(number: int, around: dict[str, Any], cause: str, word: str) -> None:
    """One errno has several causes; what surrounds the process decides between them."""
    from uringio.probing._refusals import Surroundings, explain

    refusal = explain(
        OSError(number, os.strerror(number)), Surroundings(**{"release": "6.12.1", **around})
    )
    assert refusal.cause == cause
    assert word in refusal.explanation + " ".join(refusal.remedies)


@needs_uring
def test_an_older_kernel() -> None:
    """One that refuses the newest set of flags and lacks an operation: both are found out."""
    from tests.ring.stand_ins import RefusesSetups
    from uringio._sys import constants as k
    from uringio._sys.layouts import PROBE_HEAD, PROBE_OP
    from uringio.probing._report import probe_on

    class Older(RefusesSetups):
        def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
            result = super().io_uring_register(fd, opcode, arg_addr, nr_args)
            if opcode == k.IORING_REGISTER_PROBE:
                at = arg_addr + PROBE_HEAD.size + k.IORING_OP_FTRUNCATE * PROBE_OP.size
                PROBE_OP.pack_into(self.memory_at(at, PROBE_OP.size), 0, k.IORING_OP_FTRUNCATE, 0)
            return result

    report = probe_on(Older(1))
    assert (report.works, report.backend) == (True, "uring")
    assert report.ring is not None
    assert (report.ring.rung, report.ring.rung_since) == (2, "6.1")
    assert "NO_SQARRAY" not in report.ring.flags
    missing = {one.name for one in report.ring.features if not one.here}
    assert "IORING_SETUP_NO_SQARRAY" in missing
    assert "IORING_SETUP_DEFER_TASKRUN" not in missing
    assert "IORING_OP_FTRUNCATE" in {one.name for one in report.ring.operations if not one.here}


def test_a_kernel_that_takes_no_set_of_flags() -> None:
    """Then programs run on epoll, and the reason is the kernel's."""
    from tests.ring.stand_ins import RefusesSetups
    from uringio.probing._report import probe_on

    report = probe_on(RefusesSetups(1000))
    assert (report.works, report.backend, report.ring) == (False, "epoll", None)
    assert report.refusal is not None
    assert report.refusal.error == "EINVAL"


def test_what_is_missing_is_said_with_what_happens_instead() -> None:
    """A kernel without an operation, or on a lower rung: each is named, with its substitute."""
    from uringio.cli.probe import as_text
    from uringio.probing import Feature, Limit, Machine, Operation, Report, RingReport, Workers

    report = Report(
        machine=Machine("6.0.1", "x86_64", None, "CPython 3.11.2", None, None, None, None),
        works=True,
        refusal=None,
        backend="uring",
        backend_reason="it works",
        ring=RingReport(
            3, 4, "6.0", ("CLAMP", "0x80000"), 256, 1024,
            (Feature("IORING_FEAT_NO_IOWAIT", "6.15", False, "no waiting", "some waiting"),),
            (
                Operation("IORING_OP_NOP", True, "none", ("nop",)),
                Operation("IORING_OP_FTRUNCATE", False, "thread", ("ftruncate",)),
            ),
        ),
        open_files=Limit(1024, None),
        locked_memory=Limit(65536 + 512, 65536 + 512),
        workers=Workers(8, 1000),
        surface=None,
    )  # fmt: skip
    text = as_text(report, 80)
    assert "set 3 of 4, as of Linux 6.0" in text
    assert "missing (Linux 6.15): no waiting; without it: some waiting" in " ".join(text.split())
    assert "FTRUNCATE: a worker thread makes the system call" in text
    assert "CLAMP, 0x80000" in text
    assert "1,024, which a process may raise without limit" in text
    assert "64.5 KiB" in text
    assert "8 for files, 1,000 for all else" in text


def test_the_environment_decides_and_is_named(fresh_python: FreshPython) -> None:
    """A backend of the environment's choosing is what the probe tells, with that for a reason."""
    run = probed(fresh_python, "", "--json", URINGIO_BACKEND="poll")
    found = json.loads(run.stdout)
    assert found["backend"] == "poll"
    assert "URINGIO_BACKEND" in found["backend_reason"]


@pytest.mark.parametrize("command", [("probe",), ("serve", "."), ("cp", "a", "b")])
def test_a_backend_that_there_is_not(fresh_python: FreshPython, command: tuple[str, ...]) -> None:
    """One line that names the variable and what it may be, and status 2."""
    run = fresh_python(PROBE, *command, env={"URINGIO_BACKEND": "iocp"})
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    assert "URINGIO_BACKEND" in run.stderr
    assert "auto, uring, epoll" in run.stderr


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="kqueue is here")
def test_a_backend_that_this_system_has_not(fresh_python: FreshPython, tmp_path: Path) -> None:
    """The server says in one line what the backend would need."""
    env = {"URINGIO_BACKEND": "kqueue", "URINGIO_KQUEUE_LIBRARY": ""}
    run = fresh_python(PROBE, "serve", str(tmp_path), "--port", "0", env=env)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    assert "kqueue" in run.stderr
    told = json.loads(probed(fresh_python, "", "--json", **env).stdout)
    assert told["backend"] is None
    assert "URINGIO_BACKEND" in told["backend_reason"]
