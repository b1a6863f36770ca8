"""Generated programs on files and names, whose outcomes must be the same on the real kernel."""

import errno
import os
import stat
from typing import NamedTuple

import uringio
from uringio import files, fs
from uringio.testing._dice import Dice

NAMES = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "x/a", "link", "d/link", "a/b", "d/", "d/..")
ACTIONS = (
    "write", "write", "write", "append", "read", "exclusive", "mkdir", "mkdir", "rename", "rename",
    "no replace", "unlink", "rmdir", "symlink", "link", "stat", "lstat", "list", "truncate",
    "punch", "allocate", "copy", "copy tree", "beneath",
)  # fmt: skip
_PUNCH = 0x03  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


class Step(NamedTuple):
    """One call: what, on which names, with which number."""

    action: str
    name: str
    other: str
    count: int


def program(seed: int, length: int = 40) -> list[Step]:
    """Write a program."""
    dice = Dice(seed, "file program")
    return [
        Step(dice.pick(ACTIONS), dice.pick(NAMES), dice.pick(NAMES), dice.below(9_000))
        for _ in range(length)
    ]


async def outcomes(steps: list[Step], top: str) -> list[str]:
    """Carry a program out beneath a folder; what came of each step, and what is there then."""
    told: list[str] = []
    for step in steps:
        try:
            told.append(await carry_out(step, f"{top}/{step.name}", f"{top}/{step.other}", top))
        except (OSError, uringio.UringioError) as error:
            number = getattr(error, "errno", None)
            told.append(errno.errorcode.get(number or 0, error.__class__.__name__))
    async for folder, folders, names in fs.walk(top):
        for name in [*folders, *names]:
            path = f"{folder}/{name}"
            told.append(
                path.removeprefix(top) + " " + shown(await fs.stat(path, follow_symlinks=False))
            )
    return told[: len(steps)] + sorted(told[len(steps) :])


def shown(status: os.stat_result) -> str:
    """Write down what does not depend on the filesystem."""
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
    return f"{stat.S_IFMT(status.st_mode):o} {size} {links}"


async def carry_out(step: Step, path: str, other: str, top: str) -> str:
    action, count = step.action, step.count
    data = bytes([count & 0xFF]) * count
    match action:
        case "write" | "append" | "exclusive":
            mode = {"write": "wb", "append": "ab", "exclusive": "xb"}[action]
            async with await uringio.open_file(path, mode) as file:  # type: ignore[call-overload]
                await file.write_all(data)
                await file.write_at(count // 2, b"here")
                await file.fsync()
            return "written"
        case "read":
            async with await uringio.open_file(path) as file:
                content = await file.read_all()
            return f"{len(content)} {hash_of(content)}"
        case "truncate" | "punch" | "allocate":
            async with await uringio.open_file(path, "r+b") as file:
                if action == "truncate":
                    await file.truncate(count)
                else:
                    await file.fallocate(count // 2, count + 1, _PUNCH * (action == "punch"))
                return shown(await file.stat())
        case "mkdir":
            await fs.mkdir(path)
        case "rename":
            await fs.rename(path, other)
        case "no replace":
            await fs.rename(path, other, replace=False)
        case "unlink":
            await fs.unlink(path)
        case "rmdir":
            await fs.rmdir(path)
        case "symlink":
            await fs.symlink(step.other.rstrip("/"), path)
        case "link":
            await fs.link(path, other)
        case "stat" | "lstat":
            return shown(await fs.stat(path, follow_symlinks=action == "stat"))
        case "list":
            async with fs.scandir(path) as entries:
                return ",".join(sorted([entry.name async for entry in entries]))
        case "copy":
            await fs.copy(path, other)
        case "copy tree":
            await fs.copy_tree(path, other)
        case _:
            async with (
                await uringio.open_file(top, flags=os.O_DIRECTORY) as folder,
                await files.open_beneath(folder, step.name) as file,
            ):
                return shown(await file.stat())
    return "done"


def hash_of(content: bytes) -> int:
    """Return a number that other contents do not have."""
    return sum(index * byte for index, byte in enumerate(content)) % 1_000_003
