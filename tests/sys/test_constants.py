"""The kernel's numbers, held against the kernel's own headers."""

import re
import sys

import pytest

from tests.sys import header
from tests.sys.golden_numbers import NUMBERS
from uringio._sys import constants

NAMES = sorted(name for name in vars(constants) if name.isupper())

# Constants of ours that C spells otherwise.
SPELLED: dict[str, str] = {
    "NR_IO_URING_SETUP": "__NR_io_uring_setup",
    "NR_IO_URING_ENTER": "__NR_io_uring_enter",
    "NR_IO_URING_REGISTER": "__NR_io_uring_register",
    "NR_OPENAT2": "__NR_openat2",
    "SIZEOF_SQE": "sizeof(struct io_uring_sqe)",
    "SIZEOF_CQE": "sizeof(struct io_uring_cqe)",
    "SIZEOF_SQE128": "2 * sizeof(struct io_uring_sqe)",
    "SIZEOF_CQE32": "2 * sizeof(struct io_uring_cqe)",
    "SIZEOF_PARAMS": "sizeof(struct io_uring_params)",
    "SIZEOF_STATX": "sizeof(struct statx)",
    "SIZEOF_SOCKADDR_STORAGE": "sizeof(struct sockaddr_storage)",
}

# What installed headers are often too old to know, so that its values stand here once more:
# name -> (value, the kernel that brought it).
YOUNG: dict[str, tuple[int, str]] = {**NUMBERS, "STATX_DIOALIGN": (0x2000, "6.1")}


@pytest.fixture(scope="module")
def in_headers() -> dict[str, int | None]:
    """What the installed headers say, by our names."""
    expressions = {name: SPELLED.get(name, name) for name in NAMES}
    values = header.evaluate(expressions.values())
    return {name: values[expression] for name, expression in expressions.items()}


def test_there_are_constants() -> None:
    """The walk finds the module's numbers; without this, the rest could pass on nothing."""
    assert "IORING_OP_RECV" in NAMES
    assert len(NAMES) > 270


def test_constants_are_the_headers(
    in_headers: dict[str, int | None], capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every number is the one that the installed headers give the name.

    How many they confirm is printed, and which they are too old to know; those are known to be
    young, so that a misspelt name cannot pass for one.
    """
    unknown = [name for name, value in in_headers.items() if value is None]
    wrong = {
        name: value
        for name, value in in_headers.items()
        if value is not None and value != getattr(constants, name)
    }
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(NAMES) - len(unknown)} of {len(NAMES)} constants stand in the installed "
            f"headers, which do not know {', '.join(unknown) or 'none'}\n"
        )
    assert wrong == {}
    assert set(unknown) <= set(YOUNG)
    assert len(NAMES) - len(unknown) > 150


def test_young_constants_are_as_written_down_twice() -> None:
    """Where no header may help, two independent records agree."""
    ours = {name: getattr(constants, name) for name in YOUNG}
    assert ours == {name: value for name, (value, _) in YOUNG.items()}


def test_every_number_of_io_uring_is_written_down_twice() -> None:
    """A constant that is added gets its golden row."""
    ours = {name for name in NAMES if name.startswith(("IO_", "IOSQE_", "IOU_", "IORING_"))}
    assert ours <= set(NUMBERS)


@pytest.mark.parametrize(
    "prefix",
    [
        "IORING_SETUP_",
        "IORING_FEAT_",
        "IORING_ENTER_",
        "IOSQE_",
        "IORING_CQE_F_",
        "IORING_SQ_",
        "IORING_OP_",
    ],
)
def test_no_two_names_of_a_kind_share_a_number(prefix: str) -> None:
    """A slip of the pen that repeats a neighbour's number is caught without a compiler too."""
    values = [getattr(constants, name) for name in NAMES if name.startswith(prefix)]
    assert len(values) > 1
    assert len(set(values)) == len(values)


# What the headers define beside numbers to be passed: ends of lists, masks, numbers of bits, and
# the ioctl macros that they include.
BESIDE = re.compile(r"\w+_(LAST|MASK|BIT|SHIFT)$|IOC(SIZE)?_\w+$")


def test_every_number_of_the_headers_is_ours() -> None:
    """None that the installed headers know is missing; with new headers, none of a new kernel's."""
    numbers, _ = header.names()
    assert len(numbers) > 150
    assert {one for one in numbers - set(NAMES) if not BESIDE.match(one)} == set()
