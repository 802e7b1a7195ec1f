"""The benchmark's figures as a section of RESULTS.md and a bar chart."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.measures import TITLES
from bench.proxies import Kind
from bench.python_build import Build

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

Figures = dict[Kind, dict[str, list[float]]]
"""All measurements by server and name (`PROTOCOL NAME`, see `measures.TITLES`)."""
Medians = dict[Kind, dict[str, float]]

CHARTED = ("h3 down_s", "h3 up_s", "h3 request_us", "h3 handshake_ms", "h3 idle_kb")


def markdown(
    figures: Figures, medians: Medians, missing: list[str], rounds: int, build: Build
) -> str:
    """The section: a table per protocol with medians and spread, then the ratios to Caddy."""
    lines = [
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `make bench`: Linux"
        f" {platform.release().split('-')[0]}, {os.cpu_count()} cores; quicedge on {build},"
        f" aioquic {version('aioquic')}, uvloop {version('uvloop')}. Medians of {rounds} rounds,"
        " minimum and maximum in brackets.",
    ]
    reference = next((kind for kind in medians if kind.name == "caddy"), None)
    for protocol, titles in TITLES.items():
        names = {f"{protocol} {name}": title for name, title in titles.items()}
        kinds = [kind for kind in figures if any(name in medians[kind] for name in names)]
        if not kinds:
            continue
        heading = "All protocols" if protocol == "common" else protocol
        lines += ["", *table_head(heading, *names.values())]
        for kind in kinds:
            cells = [_cell(figures[kind].get(name)) for name in names]
            lines.append(table_row(kind.label, *cells))
        for kind in kinds:
            if reference in kinds and kind.name.startswith("quicedge"):
                cells = [_ratio(medians[kind].get(n), medians[reference].get(n)) for n in names]
                lines.append(table_row(f"{kind.label}, of {reference.label}", *cells))
    lines += ["", *(f"Not measured: {line}." for line in missing)]
    return "\n".join(lines).rstrip() + "\n"


def table_head(*titles: str) -> list[str]:
    """The lines that begin a table in Markdown."""
    return [table_row(*titles), table_row(*["---"] * len(titles))]


def table_row(*cells: str) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def _cell(values: list[float] | None) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


def _ratio(own: float | None, other: float | None) -> str:
    return "-" if own is None or not other or other < 0 else f"{own / other:.2f}"


def replace_section(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks in a file; both must be there."""
    content = path.read_text()
    if begin not in content or end not in content:
        raise ValueError(f"{path}: no section {begin}")
    before, _, rest = content.partition(begin)
    path.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}")


def write(directory: Path, text: str, medians: Medians) -> None:
    """Replace the section in RESULTS.md and draw `results.png`."""
    replace_section(directory / "RESULTS.md", BEGIN, END, text)
    chart(directory / "results.png", medians)


def chart(path: Path, medians: Medians) -> None:
    """Bars of the five measures that have a bar to clear, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [kind for kind in medians if "h3" in kind.protocols]
    labels = [kind.label for kind in kinds]
    figure, panels = pyplot.subplots(1, len(CHARTED), figsize=(3.2 * len(CHARTED), 3.4))
    for panel, name in zip(panels, CHARTED, strict=True):
        values = [medians[kind][name] for kind in kinds]
        colours = ["#2563eb" if kind.name.startswith("quicedge") else "#9ca3af" for kind in kinds]
        bars = panel.barh(labels, values, color=colours)
        panel.bar_label(bars, fmt="%.3g", padding=2)
        panel.set_xlim(0, max(values) * 1.3)
        panel.set_title(TITLES["h3"][name.split()[1]], fontsize=10)
        panel.invert_yaxis()
        if panel is not panels[0]:
            panel.set_yticklabels([])
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
