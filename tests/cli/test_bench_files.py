"""`uringio bench files`: what it reads, where, and that nothing of it is left behind."""

import errno
import json
import os
from pathlib import Path

import pytest

from uringio.cli import main
from uringio.cli.bench.files import filesystem


def test_files_are_read_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Real programs read real blocks, which they check; results are written, the file has gone.

    O_DIRECT is measured where the filesystem takes it, and otherwise the reason is told.
    """
    place = tmp_path / "place"
    place.mkdir()
    arguments = ["--rounds", "1", "--seconds", "0.01", "--mib", "1", "--heap", "fresh"]
    arguments += ["--contenders", "uringio,preadv", "--folder", str(place)]
    assert main(["bench", "files", *arguments, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    (written,) = tmp_path.glob("*.json")
    answers = json.loads(written.read_text(encoding="utf-8"))["answers"]
    asked = {one["question"] for one in answers if one["contender"] == "uringio"}
    assert {"cached-1", "cached-32"} <= asked
    assert {"direct-32", "direct-128-time"} <= asked or "does not take it" in said
    assert all(one["value"] > 0 for one in answers)
    assert list(place.iterdir()) == []


def test_folder_that_takes_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there ends the command with the reason, and status 2."""
    assert main(["bench", "files", "--folder", str(tmp_path / "none")]) == 2
    assert os.strerror(errno.ENOENT) in capsys.readouterr().err


def test_filesystem_is_named(tmp_path: Path) -> None:
    """What a record says of the filesystem is what the kernel mounted there."""
    assert filesystem(Path("/proc")).startswith("proc of ")
    assert " of " in filesystem(tmp_path)
