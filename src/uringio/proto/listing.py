"""
The page that shows a folder.

Plain HTML and one style sheet inside it: no script, nothing fetched from elsewhere, light or dark
as the reader's system is.  The columns sort by links, so the order is in the address.
"""

import html
import time
from collections.abc import Iterable, Sequence
from typing import Self
from urllib.parse import parse_qsl, quote_from_bytes

import attrs

__all__ = ["Entry", "Order", "listing_page", "size_text"]


@attrs.frozen
class Entry:
    """
    One line of a directory page.

    Attributes:
        name: The file's name, any bytes.
        is_folder: It is a folder, or a link to one.
        size_bytes: A file's size. [bytes]
        modified_seconds: When it was last modified, since the epoch. [s]
    """

    name: bytes
    is_folder: bool
    size_bytes: int
    modified_seconds: int


@attrs.frozen
class Order:
    """
    How the lines of a page are sorted.

    Attributes:
        column: ``"name"``, ``"size"`` or ``"time"``.
        is_descending: The largest or latest first.
    """

    column: str = "name"
    is_descending: bool = False

    @classmethod
    def parse(cls, query: str) -> Self:
        """Read an order from a target's query; what it does not soundly say is default."""
        try:
            fields = dict(parse_qsl(query.removeprefix("?"), max_num_fields=20))
        except ValueError:
            fields = {}
        column = fields.get("sort", "name")
        return cls(column if column in _COLUMNS else "name", fields.get("order") == "desc")

    @property
    def query(self) -> str:
        """The query that asks for this order; empty for the default."""
        if self == Order():
            return ""
        return f"?sort={self.column}&order={'desc' if self.is_descending else 'asc'}"

    def apply(self, entries: Iterable[Entry]) -> list[Entry]:
        """Sort: folders first, equals by name."""
        found = sorted(entries, key=_by_name)
        if self.column == "size":
            found.sort(key=lambda entry: entry.size_bytes, reverse=self.is_descending)
        elif self.column == "time":
            found.sort(key=lambda entry: entry.modified_seconds, reverse=self.is_descending)
        elif self.is_descending:
            found.reverse()
        found.sort(key=lambda entry: not entry.is_folder)
        return found


_COLUMNS = {"name": "Name", "size": "Size", "time": "Modified"}


def _by_name(entry: Entry) -> tuple[str, bytes]:
    return entry.name.decode("utf-8", "replace").casefold(), entry.name


def size_text(size_bytes: int) -> str:
    """Return a size for people: ``999 B``, ``1.5 KiB``, ``12 MiB``."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        size /= 1024
        # 999.5 would be rounded to a fourth digit.
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
    return f"{size / 1024:.1f} EiB"


_PAGE_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ground: #fbfbfa; --sheet: #fff; --ink: #1d2025; --faint: #69707a; --line: #e4e6e9;
  --link: #0b57b0; --hover: #f0f5fc; --folder: #d99a26; --file: #9aa3ae;
  color-scheme: light dark }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: #14161a; --sheet: #1b1e23; --ink: #e4e6ea; --faint: #949ca8; --line: #2e333b;
    --link: #84b6ff; --hover: #232a35; --folder: #e3b04c; --file: #6d7682 }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0 auto; max-width: 62rem; padding: 2rem 1rem 3rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }}
a {{ color: var(--link); text-decoration: none }}
a:hover {{ text-decoration: underline }}
a:focus-visible {{ outline: 2px solid var(--link); outline-offset: 2px; border-radius: 3px }}
h1 {{ margin: 0 0 1.2rem; font-size: 1.35rem; font-weight: 600; overflow-wrap: anywhere }}
h1 i {{ margin: 0 .3em; color: var(--faint); font-style: normal; font-weight: 400 }}
table {{ width: 100%; border-collapse: separate; border-spacing: 0; background: var(--sheet);
  border: 1px solid var(--line); border-radius: 8px }}
th, td {{ padding: .42rem 1rem; text-align: left; border-bottom: 1px solid var(--line) }}
tbody tr:last-child td {{ border-bottom: 0 }}
tbody tr:hover td {{ background: var(--hover) }}
tbody tr:last-child td:first-child {{ border-bottom-left-radius: 7px }}
tbody tr:last-child td:last-child {{ border-bottom-right-radius: 7px }}
th {{ position: sticky; top: 0; z-index: 1; background: var(--sheet); font-weight: 600;
  font-size: .85rem }}
th:first-child {{ border-top-left-radius: 7px }}
th:last-child {{ border-top-right-radius: 7px }}
th a {{ color: var(--faint) }}
th[aria-sort] a {{ color: var(--ink) }}
td:first-child {{ position: relative; width: 100%; padding-left: 2.7rem;
  overflow-wrap: anywhere }}
td a {{ white-space: pre-wrap; unicode-bidi: isolate }}
.n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }}
td.n {{ color: var(--faint) }}
svg {{ position: absolute; left: 1rem; top: .62rem; width: 1.1em; height: 1.1em;
  fill: var(--file) }}
.d svg {{ fill: var(--folder) }}
.d a {{ font-weight: 500 }}
td.none {{ padding: 1.5rem 1rem; color: var(--faint) }}
footer {{ margin-top: .9rem; color: var(--faint); font-size: .85rem }}
@media (max-width: 34rem) {{
  .t {{ display: none }}
  th:nth-child(2) {{ border-top-right-radius: 7px }}
  body {{ padding: 1.2rem .7rem 2rem }}
}}
</style>
</head>
<body>
<svg style="display:none" aria-hidden="true">
<symbol id="d" viewBox="0 0 16 16"><path d="M1 3.5C1 2.7 1.7 2 2.5 2H6l1.7 2h5.8c.8 0 1.5.7
 1.5 1.5v7c0 .8-.7 1.5-1.5 1.5h-11C1.7 14 1 13.3 1 12.5z"/></symbol>
<symbol id="f" viewBox="0 0 16 16"><path d="M3 2.5C3 1.7 3.7 1 4.5 1H9v3.5c0 .6.4 1 1 1h3.5v8c0
 .8-.7 1.5-1.5 1.5H4.5c-.8 0-1.5-.7-1.5-1.5zM10 1.2 13.3 4.5H10z"/></symbol>
</svg>
<h1>{heading}</h1>
"""


# Characters that would not be seen, or turn what stands around them about, as something to see.
_UNSEEN = (
    *range(0x80, 0xA0),
    0x61C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_SEEN = (
    dict.fromkeys(_UNSEEN, 0xFFFD) | {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}
)


def _shown(name: bytes) -> str:
    return html.escape(name.decode("utf-8", "replace").translate(_SEEN))


def listing_page(
    segments: Sequence[bytes], entries: Iterable[Entry], order: Order | None = None
) -> bytes:
    """
    Return the page, in UTF-8, of the folder at *segments*: parents to climb, entries to open.

    Folders come first, each kind in *order*, which the links to other folders keep.
    """
    order = order if order is not None else Order()
    query = html.escape(order.query)
    climb = [f'<a href="/{query}">/</a>']
    path = "/"
    for index, segment in enumerate(segments):
        path += quote_from_bytes(segment, safe="") + "/"
        mark = "<i>/</i>" if index else ""
        climb.append(f'{mark}<a href="{path}{query}">{_shown(segment)}</a>')
    title = "/" + "".join(_shown(segment) + "/" for segment in segments)
    found = order.apply(entries)
    parts = [_PAGE_HEAD.format(title=title, heading="".join(climb)), "<table>\n<thead><tr>"]
    parts.extend(_column_head(column, order) for column in _COLUMNS)
    parts.append("</tr></thead>\n<tbody>\n")
    if segments:
        parts.append(
            f'<tr class="d"><td><svg aria-hidden="true"><use href="#d"/></svg>'
            f'<a href="../{query}">..</a></td><td class="n"></td><td class="n t"></td></tr>\n'
        )
    parts.extend(_line(entry, query) for entry in found)
    if not found:
        parts.append('<tr><td class="none" colspan="3">This folder is empty.</td></tr>\n')
    parts.append(f"</tbody>\n</table>\n<footer>{_summary(found)}</footer>\n</body>\n</html>\n")
    return "".join(parts).encode("utf-8")


def _column_head(column: str, order: Order) -> str:
    is_sorted = column == order.column
    kind = {"name": "", "size": ' class="n"', "time": ' class="n t"'}[column]
    # The other way round, or, in a column that did not sort yet, the more useful way first.
    descending = not order.is_descending if is_sorted else column != "name"
    mark, said = "", ""
    if is_sorted:
        mark = " ▾" if order.is_descending else " ▴"
        said = f' aria-sort="{"descending" if order.is_descending else "ascending"}"'
    query = html.escape(Order(column, descending).query or "?")
    return f'<th{kind}{said}><a href="./{query}">{_COLUMNS[column]}{mark}</a></th>'


def _line(entry: Entry, query: str) -> str:
    # The name alone could be read as a scheme ("a:b") or be empty before a query; "./" cannot.
    path = "./" + quote_from_bytes(entry.name, safe="")
    if entry.is_folder:
        kind, icon, size = ' class="d"', "d", ""
        path += "/" + query
    else:
        kind, icon, size = "", "f", size_text(entry.size_bytes)
    name = _shown(entry.name) + ("/" if entry.is_folder else "")
    return (
        f'<tr{kind}><td><svg aria-hidden="true"><use href="#{icon}"/></svg>'
        f'<a href="{path}">{name}</a></td><td class="n">{size}</td>'
        f'<td class="n t">{_minute(entry.modified_seconds)}</td></tr>\n'
    )


def _summary(entries: Sequence[Entry]) -> str:
    folders = sum(entry.is_folder for entry in entries)
    files = len(entries) - folders
    said: list[str] = []
    if folders:
        said.append(f"{folders} folder" + "s" * (folders != 1))
    if files:
        total = size_text(sum(entry.size_bytes for entry in entries if not entry.is_folder))
        said.append(f"{files} file" + "s" * (files != 1) + f", {total}")
    return ", ".join(said) + (". Times are UTC." if said else "")


def _minute(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""
