"""The congestion graph as an image, for documents and tickets.

Drawn with matplotlib, an optional dependency (`quicedge[plot]`), which handles axes, ticks, legends
and fonts and writes PNG, SVG and PDF. Nothing else in the project needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quicedge.qlog.connection import Connection
from quicedge.qlog.series import Series
from quicedge.qlog.verdict import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = (".png", ".svg", ".pdf")
_WINDOW, _FLIGHT, _LOSS, _RTT, _SMOOTHED = "#0072b2", "#56b4e9", "#d55e00", "#b7dfcf", "#007a57"


class MissingLibrary(Exception):
    """matplotlib is not installed; the message says how to install it."""


def draw(path: Path, connection: Connection) -> None:
    """Write an image; its format follows the name. Raises MissingLibrary, ValueError, OSError."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path.name}: write a picture to {', '.join(_FORMATS)}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingLibrary("drawing needs matplotlib: pip install 'quicedge[plot]'") from None
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(_plain(headline(connection)), fontsize=11, x=0.01, ha="left")
    _congestion(above, connection)
    _round_trips(below, connection)
    below.set_xlabel("time (s)")
    figure.savefig(path, dpi=130)


def _plain(text: str) -> str:
    """Escape dollar signs, which matplotlib interprets as mathematics."""
    return text.replace("$", r"\$")


def _columns(series: Series, scale: float) -> tuple[list[float], ...]:
    points = series.points()
    return (
        [point[0] / 1000 for point in points],
        *([point[column] / scale for point in points] for column in (1, 2, 3)),
    )


def _congestion(axes: Axes, connection: Connection) -> None:
    axes.set_ylabel("kB")
    if connection.recovery.flight_series:
        time, _, high, _ = _columns(connection.recovery.flight_series, 1000)
        axes.fill_between(time, high, step="post", color=_FLIGHT, alpha=0.6, lw=0,
                          label="bytes in flight")  # fmt: skip
    if connection.recovery.window_series:
        time, _, _, last = _columns(connection.recovery.window_series, 1000)
        time.append(connection.end / 1000)
        last.append(last[-1])
        axes.step(time, last, where="post", color=_WINDOW, lw=1.5, label="congestion window")
    losses = [at / 1000 for at, _ in connection.losses]
    if losses:
        axes.plot(losses, [0] * len(losses), "v", color=_LOSS, ms=6, clip_on=False, zorder=5,
                  label=f"losses ({connection.lost} packets)")  # fmt: skip
    axes.set_ylim(bottom=0)
    _finish(axes)


def _round_trips(axes: Axes, connection: Connection) -> None:
    axes.set_ylabel("RTT (ms)")
    if connection.recovery.rtt_series:
        time, low, high, _ = _columns(connection.recovery.rtt_series, 1)
        axes.fill_between(time, low, high, color=_RTT, lw=1, label="samples")
        axes.plot(time, high, color=_RTT, lw=0.8)
    if connection.recovery.smoothed_series:
        time, _, _, last = _columns(connection.recovery.smoothed_series, 1)
        axes.plot(time, last, color=_SMOOTHED, lw=1.5, label="smoothed")
    if connection.recovery.min_rtt is not None:
        axes.axhline(connection.recovery.min_rtt, color="0.5", lw=0.8, ls="--", label="minimum")
    axes.set_ylim(bottom=0)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles: tuple[list[Any], list[str]] = axes.get_legend_handles_labels()
    if handles[0]:
        axes.legend(*handles, loc="upper right", fontsize=8, framealpha=0.85)
