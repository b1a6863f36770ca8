"""The kernel's numbers, held against the kernel's own headers."""

import pytest

from tests.sys import header
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
    "SIZEOF_PARAMS": "sizeof(struct io_uring_params)",
    "SIZEOF_STATX": "sizeof(struct statx)",
    "SIZEOF_SOCKADDR_STORAGE": "sizeof(struct sockaddr_storage)",
}

# What installed headers are often too old to know, so that its values stand here once more:
# name -> (value, the kernel that brought it).
YOUNG: dict[str, tuple[int, str]] = {
    "IORING_SETUP_NO_SQARRAY": (65536, "6.6"),
    "IORING_FEAT_REG_REG_RING": (8192, "6.3"),
    "IORING_FEAT_NO_IOWAIT": (131072, "6.15"),
    "IORING_ENTER_NO_IOWAIT": (128, "6.15"),
    "IORING_NOP_INJECT_RESULT": (1, "6.10"),
    "IORING_OP_SEND_ZC": (47, "6.0"),
    "IORING_OP_SENDMSG_ZC": (48, "6.1"),
    "IORING_OP_FIXED_FD_INSTALL": (54, "6.8"),
    "IORING_OP_FTRUNCATE": (55, "6.9"),
    "STATX_DIOALIGN": (0x2000, "6.1"),
}


@pytest.fixture(scope="module")
def in_headers() -> dict[str, int | None]:
    """What the installed headers say, by our names."""
    expressions = {name: SPELLED.get(name, name) for name in NAMES}
    values = header.evaluate(expressions.values())
    return {name: values[expression] for name, expression in expressions.items()}


def test_there_are_constants() -> None:
    """The walk finds the module's numbers; without this, the rest could pass on nothing."""
    assert "IORING_OP_RECV" in NAMES
    assert len(NAMES) > 80


@pytest.mark.parametrize("name", NAMES)
def test_constant_is_the_kernels(name: str, in_headers: dict[str, int | None]) -> None:
    """
    The number is the one that the installed headers give the name.

    What they are too old to know is skipped, by name; and only if it is known to be young, so that
    a misspelt name cannot pass for one.
    """
    value = in_headers[name]
    if value is None:
        assert name in YOUNG, f"neither the installed headers nor this test know {name}"
        pytest.skip(f"the installed headers are older than {name} (Linux {YOUNG[name][1]})")
    assert getattr(constants, name) == value


@pytest.mark.parametrize("name", sorted(YOUNG))
def test_young_constant_is_as_written_down_twice(name: str) -> None:
    """Where no header may help, two independent records agree."""
    assert getattr(constants, name) == YOUNG[name][0]


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
        "IORING_REGISTER_",
    ],
)
def test_no_two_names_of_a_kind_share_a_number(prefix: str) -> None:
    """A slip of the pen that repeats a neighbour's number is caught without a compiler too."""
    values = [getattr(constants, name) for name in NAMES if name.startswith(prefix)]
    assert len(values) > 1
    assert len(set(values)) == len(values)
