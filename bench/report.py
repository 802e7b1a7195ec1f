"""The benchmark's figures as a section of RESULTS.md and a bar chart."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.proxies import Kind

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

MEASURES = {
    "down_cpu_s_per_gb": "CPU s per GB down",
    "up_cpu_s_per_gb": "CPU s per GB up",
    "request_cpu_us": "CPU us per small request",
    "handshake_cpu_ms": "CPU ms per handshake",
    "idle_connection_kb": "KB per idle connection",
    "resident_mb": "MB at start",
    "peak_mb": "MB after load",
    "request_p99_ms": "p99 ms of a small request",
}

Figures = dict[Kind, dict[str, list[float]]]
Medians = dict[Kind, dict[str, float]]


def markdown(figures: Figures, medians: Medians, missing: list[str], rounds: int) -> str:
    """The section: medians with spread, then quicedge's ratio to each."""
    head = "| | " + " | ".join(MEASURES.values()) + " |"
    rule = "| --- |" + " --- |" * len(MEASURES)
    lines = [
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `make bench`: Linux"
        f" {platform.release().split('-')[0]}, {os.cpu_count()} cores, Python"
        f" {platform.python_version()}, aioquic {version('aioquic')}, uvloop"
        f" {version('uvloop')}. Medians of {rounds} rounds, least and greatest in brackets.",
        "",
        head,
        rule,
    ]
    for kind, measured in figures.items():
        cells = [
            f"{medians[kind][name]:.3g} [{min(measured[name]):.3g}, {max(measured[name]):.3g}]"
            for name in MEASURES
        ]
        lines.append(f"| {kind.label} | " + " | ".join(cells) + " |")
    own = next((kind for kind in medians if kind.name == "quicedge"), None)
    if own is not None and len(medians) > 1:
        lines += ["", "quicedge's figure as a multiple of each other server's:", "", head, rule]
        for kind in medians:
            if kind is not own:
                cells = [
                    f"{medians[own][name] / medians[kind][name]:.2f}"
                    if medians[kind][name] > 0
                    else "-"
                    for name in MEASURES
                ]
                lines.append(f"| {kind.label} | " + " | ".join(cells) + " |")
    lines += ["", *(f"Not measured: {line}." for line in missing)]
    return "\n".join(lines).rstrip() + "\n"


def write(directory: Path, text: str, medians: Medians) -> None:
    """Replace the section in RESULTS.md and draw `results.png`."""
    path = directory / "RESULTS.md"
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    chart(directory / "results.png", medians)


def chart(path: Path, medians: Medians) -> None:
    """Bars of the five measures that have a bar to clear, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(MEASURES)[:5]
    labels = [kind.label for kind in medians]
    figure, panels = pyplot.subplots(1, len(names), figsize=(3.2 * len(names), 3.4))
    for panel, name in zip(panels, names, strict=True):
        values = [measured[name] for measured in medians.values()]
        colours = ["#2563eb" if kind.name == "quicedge" else "#9ca3af" for kind in medians]
        bars = panel.barh(labels, values, color=colours)
        panel.bar_label(bars, fmt="%.3g", padding=2)
        panel.set_xscale("log")
        panel.set_xlim(right=max(values) * 4)
        panel.set_title(MEASURES[name], fontsize=10)
        panel.invert_yaxis()
        if panel is not panels[0]:
            panel.set_yticklabels([])
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
