"""Names of files, as messages show them: in one line, whatever they hold."""

import os

__all__ = ["quoted", "shown"]


def quoted(path: str | bytes) -> str:
    """Return *path* as one line for people, in quotes that a shell takes."""
    text = os.fsdecode(path)
    if text.isprintable() and "'" not in text:
        return f"'{text}'"
    shown = [char if char.isprintable() and char not in "'\\" else _escaped(char) for char in text]
    return f"$'{''.join(shown)}'"


def _escaped(char: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "'": "\\'", "\\": "\\\\"}
    return short.get(char) or "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def shown(text: str) -> str:
    """Return *text* as it is if that can be read in one line, else quoted."""
    return text if text and text.isprintable() else quoted(text)
