"""Listings of directories, for people and for programs."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from urllib.parse import quote_from_bytes, unquote

from quicedge.config.filterlimits import STATIC_LISTED
from quicedge.http.dates import format_date
from quicedge.upstream.files import Entry

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.3rem; overflow-wrap: anywhere }}
table {{ border-collapse: collapse; width: 100% }}
td {{ padding: .2rem .8rem .2rem 0; overflow-wrap: anywhere }}
td + td {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }}
a {{ text-decoration: none }} a:hover {{ text-decoration: underline }}
</style></head><body><h1>{title}</h1><table>
{rows}
</table>{note}</body></html>
"""
_ROW = '<tr><td><a href="{href}">{name}</a></td><td>{size}</td><td>{modified}</td></tr>'


def _sorted(entries: Sequence[Entry]) -> list[Entry]:
    """Directories first, each by name."""
    return sorted(entries, key=lambda entry: (not entry.is_directory, entry.name.lower()))


def html_listing(path: bytes, entries: Sequence[Entry]) -> bytes:
    """A page with links to the entries of the directory of a path."""
    title = html.escape(unquote(path.decode("ascii", "replace")))
    rows = []
    if path != b"/":
        rows.append(_ROW.format(href="../", name="..", size="", modified=""))
    for entry in _sorted(entries):
        mark = "/" if entry.is_directory else ""
        rows.append(
            _ROW.format(
                href=f"./{quote_from_bytes(entry.name)}{mark}",
                name=html.escape(entry.name.decode("utf-8", "replace")) + mark,
                size="" if entry.is_directory else _size(entry.size),
                modified=format_date(int(entry.modified)).decode(),
            )
        )
    full = len(entries) == STATIC_LISTED
    note = f"<p>At most {STATIC_LISTED} entries are shown.</p>" if full else ""
    return _PAGE.format(title=title, rows="\n".join(rows), note=note).encode()


def json_listing(entries: Sequence[Entry]) -> bytes:
    """The entries as JSON: name, type, size in bytes, modified in seconds since 1970."""
    return json.dumps(
        [
            {
                "name": entry.name.decode("utf-8", "replace"),
                "type": "directory" if entry.is_directory else "file",
                "size": entry.size,
                "modified": int(entry.modified),
            }
            for entry in _sorted(entries)
        ]
    ).encode()


def _size(size: int) -> str:
    """A size in the largest unit of which there is at least one."""
    value, units = float(size), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
