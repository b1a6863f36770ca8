"""Where in the program something was asked for that was forgotten later."""

import sys

__all__ = ["site", "site_words"]

# Between a call of ours and the program's line there may be frames of these.
_OURS = "uringio."
_LOOP = "asyncio."


def site() -> str | None:
    """
    Name the program's line that asks for what is being made, in development mode.

    None without ``python -X dev``, since looking costs microseconds, and where there is no such
    line: under asyncio a single operation makes its result before the task goes on.
    """
    if not sys.flags.dev_mode:
        return None
    import inspect  # slow to import, and only development mode wants it

    frame = inspect.currentframe()
    while frame is not None:
        name: str = frame.f_globals.get("__name__", "")
        if name.startswith(_LOOP):
            return None
        if not name.startswith(_OURS):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def site_words(made: str, where: str | None) -> str:
    """Return the words for the end of a warning, such as ``, opened at main.py:7``."""
    return f", {made} at {where}" if where else ""
