"""One run: ``python -m tests.crashlab.child PROGRAM SEED``."""

import sys

# They enter their programs.
from tests.crashlab import handles, memory, process, tables  # noqa: F401
from tests.crashlab.lab import PROGRAMS, Lab


def main(name: str, seed: int) -> None:
    """Run the program."""
    PROGRAMS[name](Lab(seed))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
