"""``python -m uringio``: the command."""

import sys

from uringio.cli import main

if __name__ == "__main__":
    sys.exit(main())
