"""`quicedge top`: the connections of a running edge in a terminal, live."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from quicedge.cli.adminclient import AdminClient, AdminError, admin_client, admin_options
from quicedge.telemetry.text import escape

_KEYS = {
    "c": ("created_at", "newest"),
    "r": ("smoothed_rtt", "RTT"),
    "w": ("congestion_window", "window"),
    "l": ("packets_lost", "lost"),
    "s": ("bytes_sent", "sent"),
    "d": ("delivery_rate", "delivery"),
    "q": None,
}
_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 16
_REMEMBERED = 500
"""Connections whose recent past is kept for the sparklines."""


class Screen:
    """What is shown: the table of connections, or one of them."""

    def __init__(self, client: AdminClient, rows: int) -> None:
        self._client = client
        self._rows = rows
        self._past: dict[str, tuple[deque[float], deque[float]]] = {}
        self.sort = "-created_at"
        self.cursor = 0
        self.chosen: str | None = None
        self._listed: list[str] = []

    def press(self, key: str) -> bool:
        """Act on a key; False: the end."""
        if key in ("\r", "\n") and self._listed:
            self.chosen = self._listed[min(self.cursor, len(self._listed) - 1)]
        elif key in ("\x1b", "b"):
            self.chosen = None
        elif key in ("j", "k"):
            self.cursor = max(
                0, min(self.cursor + (1 if key == "j" else -1), len(self._listed) - 1)
            )
        elif key in _KEYS:
            found = _KEYS[key]
            if found is None:
                return False
            self.sort = f"-{found[0]}" if self.sort != f"-{found[0]}" else found[0]
        return True

    def draw(self) -> RenderableType:
        """The screen as it is now."""
        try:
            return self._detail(self.chosen) if self.chosen is not None else self.table()
        except AdminError as error:
            return Text(f"{error} (trying again)", style="red")

    def table(self) -> RenderableType:
        query = urlencode({"sort": self.sort, "limit": self._rows})
        page = self._client.get(f"/api/v1/connections?{query}")
        status = self._client.get("/api/v1/status")
        rows = page["connections"]
        self._listed = [row["id"] for row in rows]
        self._remember(rows)
        table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
        for name in ("client", "server name", "state"):
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=2)
        for name in ("RTT", "", "window", "", "in flight", "delivery", "lost", "req", "sent"):
            table.add_column(name, justify="right", no_wrap=True)
        for index, row in enumerate(rows):
            rtts, windows = self._past[row["id"]]
            table.add_row(
                Text(escape(row["remote_address"])),
                Text(escape(row["sni"] or "-")),
                row["state"],
                _ms(row["smoothed_rtt"]), Text(sparkline(rtts), style="cyan"),
                _bytes(row["congestion_window"]), Text(sparkline(windows), style="magenta"),
                _bytes(row["bytes_in_flight"]),
                _bits(row["delivery_rate"]),
                Text(str(row["packets_lost"]), style="red" if row["packets_lost"] else ""),
                str(row["requests"]),
                _bytes(row["bytes_sent"]),
                style="reverse" if index == self.cursor else "",
            )  # fmt: skip
        head = Text(
            f"quicedge {status['version']} {status['state']}, {page['total']} connections, "
            f"{len(status['workers'])} workers, sorted by {self.sort}"
        )
        keys = Text(
            "  ".join(f"{key} {found[1]}" for key, found in _KEYS.items() if found)
            + "  j/k move  Enter detail  q quit",
            style="dim",
        )
        return Group(head, table, keys)

    def _detail(self, connection_id: str) -> RenderableType:
        row = self._client.get(f"/api/v1/connections/{connection_id}")
        self._remember([row])
        rtts, windows = self._past[connection_id]
        table = Table.grid(padding=(0, 2))
        table.add_row("RTT", Text(sparkline(rtts), style="cyan"))
        table.add_row("window", Text(sparkline(windows), style="magenta"))
        for name, value in row.items():
            if value is not None and name != "time" and not isinstance(value, list | dict):
                words = name.removesuffix("_seconds").replace("_", " ")
                table.add_row(Text(words, style="dim"), Text(escape(told(name, value))))
        for stream in row["streams"] or ():
            about = f"{stream['method']} {stream['path']} {stream['status'] or ''}"
            table.add_row(Text(f"stream {stream['stream_id']}", style="dim"), Text(escape(about)))
        return Group(table, Text("b back  q quit", style="dim"))

    def _remember(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            past = self._past.setdefault(row["id"], (deque(maxlen=_POINTS), deque(maxlen=_POINTS)))
            if row["smoothed_rtt"] is not None:
                past[0].append(row["smoothed_rtt"])
            past[1].append(row["congestion_window"])
        while len(self._past) > _REMEMBERED:
            del self._past[next(iter(self._past))]


def sparkline(values: deque[float]) -> str:
    """Values as a row of bars, the least one lowest."""
    if not values:
        return ""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return "".join(_BARS[int((value - least) / span * (len(_BARS) - 1))] for value in values)


def told(name: str, value: Any) -> str:
    """A statistic for people, its unit by its name."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if name == "created_at":
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))
    if name.endswith("_seconds") or "rtt" in name:
        return _ms(value) if value < 1 else f"{value:.1f} s"
    if name.endswith("_rate"):
        return _bits(value)
    if any(part in name for part in ("bytes", "window", "buffered", "ssthresh")):
        return _bytes(value)
    return str(value)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def _bytes(value: float | None) -> str:
    return "-" if value is None else _scaled(value, ("B", "KB", "MB", "GB", "TB"))


def _bits(value: float | None) -> str:
    return "-" if value is None else _scaled(value, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"))


def _scaled(value: float, units: tuple[str, ...]) -> str:
    unit = 0
    while value >= 1000 and unit < len(units) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3g} {units[unit]}"


@contextlib.contextmanager
def _single_keys() -> Iterator[None]:
    """Keys come without Enter while this lasts."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@click.command()
@admin_options
@click.option("--interval", default=1.0, show_default=True, type=click.FloatRange(0.1, 60))
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--sort", "sort", default="created_at", show_default=True, metavar="FIELD")
def command(admin: str, token_file: Any, interval: float, once: bool, sort: str) -> None:
    """Show the connections of a running edge, live."""
    console = Console()
    client = admin_client(admin, token_file)
    screen = Screen(client, rows=1000 if once else max(console.height - 4, 5))
    screen.sort = f"-{sort}"
    if once or not sys.stdin.isatty():
        try:
            console.print(screen.table())
        except AdminError as error:
            raise click.ClickException(str(error)) from error
        return
    with (
        _single_keys(),
        Live(screen.draw(), console=console, screen=True, auto_refresh=False) as live,
    ):
        due = time.monotonic() + interval
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))
            if ready and not screen.press(sys.stdin.read(1)):
                return
            due = time.monotonic() + interval
            live.update(screen.draw(), refresh=True)
