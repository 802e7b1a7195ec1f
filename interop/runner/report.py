"""A finished matrix as JSON in the interop runner's shape, as Markdown and as a page."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from interop.runner.matrix import Cell, Matrix
from interop.runner.trial import Result

MARKS = {Result.SUCCEEDED: "✓", Result.UNSUPPORTED: "?", Result.FAILED: "✕", None: "·"}
_COLOURS = {Result.SUCCEEDED: "ok", Result.UNSUPPORTED: "na", Result.FAILED: "bad", None: "none"}


def as_json(matrix: Matrix) -> dict[str, Any]:
    """The shape of the interop runner's results, with the reason of each failure beside it."""
    pairs = [matrix.cells[c.name, s.name] for c in matrix.clients for s in matrix.servers]
    everyone = {item.name: item for item in (*matrix.clients, *matrix.servers)}
    return {
        "start_time": matrix.start_time,
        "end_time": matrix.end_time,
        "log_dir": str(matrix.directory),
        "servers": [server.name for server in matrix.servers],
        "clients": [client.name for client in matrix.clients],
        "urls": {name: item.url for name, item in everyone.items()},
        "versions": {name: item.version for name, item in everyone.items()},
        "tests": {case.abbr: {"name": case.name, "desc": case.desc} for case in matrix.cases},
        "quic_version": "0x1",
        "results": [[_entry(cell) for cell in cells if not cell.case.measured] for cells in pairs],
        "measurements": [
            [{**_entry(cell), "details": cell.details} for cell in cells if cell.case.measured]
            for cells in pairs
        ],
    }


def _entry(cell: Cell) -> dict[str, Any]:
    return {
        "abbr": cell.case.abbr,
        "name": cell.case.name,
        "result": cell.result.value if cell.result else None,
        "reason": cell.why,
        "runs": len(cell.outcomes),
    }


def as_markdown(matrix: Matrix) -> str:
    """One table, a row for each case, and the reasons below it."""
    pairs = list(matrix.cells)
    lines = ["| case | " + " | ".join(f"{c} → {s}" for c, s in pairs) + " |"]
    lines.append("|---|" + "---|" * len(pairs))
    for index, case in enumerate(matrix.cases):
        cells = [matrix.cells[pair][index] for pair in pairs]
        marks = (f"{MARKS[cell.result]} {cell.details}".strip() for cell in cells)
        lines.append(f"| {case.name} | " + " | ".join(marks) + " |")
    everyone = {item.name: item.version for item in (*matrix.clients, *matrix.servers)}
    lines += ["", "Read `client → server`; ✓ succeeded, ✕ failed, ? not supported, · not run."]
    lines += ["", "Versions: " + ", ".join(f"{n} {v}".strip() for n, v in everyone.items()) + "."]
    reasons = matrix.reasons()
    if reasons:
        lines += [
            "",
            *(f"- {MARKS[result]} {pair}, {case}: {why}" for pair, case, result, why in reasons),
        ]
    return "\n".join(lines) + "\n"


def as_html(matrix: Matrix) -> str:
    """A page that stands alone: client x server, each case with its reason and its files."""
    escape = html.escape
    head = "".join(f"<th scope=col>{escape(server.name)}" for server in matrix.servers)
    rows = ""
    for client in matrix.clients:
        rows += f"<tr><th scope=row>{escape(client.name)}"
        for server in matrix.servers:
            links = "".join(
                _html_cell(cell, f"{server.name}_{client.name}/{cell.case.name}/")
                for cell in matrix.cells[client.name, server.name]
            )
            rows += f"<td>{links}"
    reasons = "".join(
        f"<tr><td>{escape(pair)}<td>{escape(case)}<td>{escape(why)}"
        for pair, case, _, why in matrix.reasons()
    )
    cases = "".join(
        f"<tr><td>{escape(case.abbr)}<td>{escape(case.name)}<td>{escape(case.desc)}"
        for case in matrix.cases
    )
    return _PAGE.format(head=head, rows=rows, reasons=reasons, cases=cases)


def _html_cell(cell: Cell, where: str) -> str:
    title = " ".join(filter(None, (cell.case.name, cell.details, cell.why)))
    label = f"{cell.case.abbr} {cell.details}".strip()
    return (
        f'<a class={_COLOURS[cell.result]} href="{html.escape(where)}"'
        f' title="{html.escape(title)}">{html.escape(label)}</a> '
    )


_PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><title>quicedge interop</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; max-width: 80rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ border: 1px solid #ccc; padding: .4rem .6rem; text-align: left; vertical-align: top }}
a {{ padding: 0 .3rem; border-radius: .2rem; color: #000; text-decoration: none }}
.ok {{ background: #b6e3b6 }} .bad {{ background: #f2a6a0 }}
.na {{ background: #e6dfb8 }} .none {{ background: #ddd }}
</style>
<h1>QUIC interop: clients in rows, servers in columns</h1>
<table><tr><th>{head}{rows}</table>
<h2>Reasons</h2><table>{reasons}</table>
<h2>Cases</h2><table>{cases}</table>
</html>
"""


def write_reports(matrix: Matrix, directory: Path) -> None:
    """Write results.json, results.md and index.html."""
    text = json.dumps(as_json(matrix), indent=1, ensure_ascii=False)
    (directory / "results.json").write_text(text + "\n")
    (directory / "results.md").write_text(as_markdown(matrix))
    (directory / "index.html").write_text(as_html(matrix))
