"""
Benchmarks of single parts of uringio, for those who work on it; see README.md in this folder.

What compares uringio with its rivals is `uringio bench`, which comes with the package.
"""

import sys
from pathlib import Path

# The tree that this folder is in is what is measured, whatever else is installed.
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "src"))
