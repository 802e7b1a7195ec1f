"""The screen of `quicedge top`: the table of connections, or the details of one."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quicedge.cli.adminclient import AdminClient, AdminError
from quicedge.cli.units import bits, formatted, milliseconds, octets, sparkline
from quicedge.config.limits import ADMIN_MAX_ROWS
from quicedge.telemetry.text import escape

Row = dict[str, Any]

SHORT_ID = 8
"""Digits of an abbreviated ID, as in the console format of the access log."""
_POINTS = 16
_REMEMBERED = 500
"""Connections whose history is kept for the sparklines."""
_FRAME = 3
"""Lines not used for connections: status, column names, keys."""
_DETAIL_FRAME = 1
_WIDE = 140
"""Minimum width for sparklines."""


class Key(Enum):
    """What a key press asks for."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    TOP = "top"
    BOTTOM = "bottom"
    OPEN = "open"
    BACK = "back"
    QUIT = "quit"


KEYS = {
    "k": Key.UP, "\x1b[A": Key.UP, "\x1bOA": Key.UP,
    "j": Key.DOWN, "\x1b[B": Key.DOWN, "\x1bOB": Key.DOWN,
    "\x1b[5~": Key.PAGE_UP, "\x15": Key.PAGE_UP,
    "\x1b[6~": Key.PAGE_DOWN, "\x04": Key.PAGE_DOWN, " ": Key.PAGE_DOWN,
    "g": Key.TOP, "\x1b[H": Key.TOP, "\x1b[1~": Key.TOP,
    "G": Key.BOTTOM, "\x1b[F": Key.BOTTOM, "\x1b[4~": Key.BOTTOM,
    "\r": Key.OPEN, "\n": Key.OPEN,
    "b": Key.BACK, "\x1b": Key.BACK,
    "q": Key.QUIT,
}  # fmt: skip
SORTS = {
    "c": ("created_at", "start"),
    "r": ("smoothed_rtt", "RTT"),
    "w": ("congestion_window", "window"),
    "l": ("packets_lost", "lost"),
    "s": ("bytes_sent", "sent"),
    "d": ("delivery_rate", "rate"),
}


class Column(NamedTuple):
    title: str
    value: Callable[[Row], str]
    width: int = 0
    """Minimum terminal width at which it is shown."""
    is_figure: bool = True


_PROTOCOLS = {"h3": "h3", "h2": "h2", "http/1.1": "h1"}
"""Short names of the values of `protocol`, in the order that `p` shows them alone."""


def _protocol(row: Row) -> str:
    return _PROTOCOLS.get(row["protocol"], str(row["transport"]))


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


COLUMNS = (
    Column("RTT", lambda row: milliseconds(row["smoothed_rtt"])),
    Column("window", lambda row: octets(row["congestion_window"])),
    Column("in flight", lambda row: octets(row["bytes_in_flight"]), 100),
    Column("delivery", lambda row: bits(row["delivery_rate"])),
    Column("lost", lambda row: _number(row["packets_lost"])),
    Column("req", lambda row: str(row["requests"])),
    Column("sent", lambda row: octets(row["bytes_sent"])),
    Column("on", lambda row: _protocol(row), is_figure=False),
    Column("ID", lambda row: row["id"], is_figure=False),
    Column("client", lambda row: escape(row["remote_address"]), is_figure=False),
    Column(
        "limited by", lambda row: (row["limited_by"] or "-").replace("_", " "), 140, is_figure=False
    ),
    Column("server name", lambda row: escape(row["sni"] or "-"), 120, is_figure=False),
    Column("state", lambda row: row["state"], 100, is_figure=False),
)

SECTIONS = (
    ("Round-trip time and congestion",
     re.compile(r"rtt|congestion_|in_flight|ssthresh|^pto|_rate$|^mtu$|^reordering$")),
    ("What limited it", re.compile(r"^(main_direction|limited_by)$|_limited_seconds$")),
    ("Packets and bytes", re.compile(r"^(packets|bytes)_")),
    ("Streams and flow control",
     re.compile(r"^streams_|requests|resets|stop_sending|_window$|buffered")),
    ("Identity", re.compile(r"^(id|worker|odcid|scids|dcid|remote_address|local_address|"
                            r"path_validated|migrations|sni|routes|transport|protocol)$")),
    ("Lifetime", re.compile(r"^(state|close_reason|created_at|age_seconds|idle_seconds)$")),
    ("Handshake", re.compile(r"^(version|tls_version|alpn|cipher|group|signature|hello_retry|retry|"
                             r"resumed|early_data|key_updates|handshake_seconds|first_byte_seconds)$")),
    ("Other", re.compile("")),
)  # fmt: skip
"""Members of a connection snapshot by topic, in display order."""


class Screen:
    """The state of the screen: a scrollable table, or the selected connection."""

    def __init__(self, client: AdminClient, width: int, height: int) -> None:
        self._client = client
        self.width = width
        self.height = height
        self._past: dict[str, tuple[deque[float], deque[float]]] = {}
        self.sort = "-created_at"
        self.protocol: str | None = None
        """Only connections of this protocol are shown; None: all."""
        self.cursor = 0
        """Index of the selected row among all connections."""
        self.first = 0
        """Index of the first visible connection, or the first visible line of the details."""
        self.chosen: str | None = None
        self._listed: list[str] = []
        self._total = 0

    # --- keys -----------------------------------------------------------------------------------

    def press(self, key: str) -> bool:
        """Handle a key; returns False to quit."""
        action = KEYS.get(key)
        if action is Key.QUIT:
            return False
        if self.chosen is not None:
            if action is Key.BACK:
                self.chosen = None
                self.first = 0
            else:
                self.first = self._moved(self.first, action)
        elif action is Key.OPEN and self._listed:
            at = min(max(self.cursor - self.first, 0), len(self._listed) - 1)
            self.chosen = self._listed[at]
            self.first = 0
        elif key == "p":
            following = [None, *_PROTOCOLS, None]
            self.protocol = following[following.index(self.protocol) + 1]
            self.cursor = self.first = 0
        elif key in SORTS:
            field = SORTS[key][0]
            self.sort = field if self.sort == f"-{field}" else f"-{field}"
        else:
            self.cursor = self._moved(self.cursor, action)
        return True

    def _moved(self, place: int, action: Key | None) -> int:
        page = max(self.rows - 1, 1)
        steps = {Key.UP: -1, Key.DOWN: 1, Key.PAGE_UP: -page, Key.PAGE_DOWN: page,
                 Key.TOP: -place, Key.BOTTOM: self._total}  # fmt: skip
        step = steps.get(action, 0) if action is not None else 0
        return max(0, min(place + step, self._total - 1))

    @property
    def rows(self) -> int:
        """Lines available for connections or details."""
        return max(self.height - (_FRAME if self.chosen is None else _DETAIL_FRAME), 1)

    # --- the screen -----------------------------------------------------------------------------

    def draw(self) -> RenderableType:
        """Query the edge and render the screen."""
        try:
            return self._detail(self.chosen) if self.chosen is not None else self.table()
        except AdminError as error:
            return Text(f"{error} (retrying)", style="red")

    def table(self) -> RenderableType:
        """Status, connections and keys; scrolls to keep the selected row visible."""
        self.first = max(min(self.first, self.cursor), self.cursor - self.rows + 1, 0)
        self.first = min(self.first, ADMIN_MAX_ROWS - self.rows)
        rows, head = self._page(self.first, self.rows)
        if not rows and self.first:
            self.cursor = max(self._total - 1, 0)
            self.first = max(self._total - self.rows, 0)
            rows, head = self._page(self.first, self.rows)
        self._listed = [row["id"] for row in rows]
        self._remember(rows)
        columns = [column for column in COLUMNS if self.width >= column.width]
        wide = self.width >= _WIDE
        table = Table(box=None, pad_edge=False, header_style="dim", width=self.width)
        for column in columns:
            if column.is_figure:
                table.add_column(column.title, justify="right", no_wrap=True)
                if wide and column.title in ("RTT", "window"):
                    table.add_column("", no_wrap=True)
            else:
                ratio = None if column.title in ("on", "ID", "state") else 1
                table.add_column(column.title, no_wrap=True, overflow="ellipsis", ratio=ratio)
        for place, row in enumerate(rows, self.first):
            cells: list[Text] = []
            rtts, windows = self._past[row["id"]]
            for column in columns:
                text = column.value(row)
                if column.title == "ID":
                    text = text[:SHORT_ID]
                lost = column.title == "lost" and row["packets_lost"]
                cells.append(Text(text, style="red" if lost else ""))
                if wide and column.title == "RTT":
                    cells.append(Text(sparkline(rtts), style="cyan"))
                elif wide and column.title == "window":
                    cells.append(Text(sparkline(windows), style="magenta"))
            table.add_row(*cells, style="reverse" if place == self.cursor else "")
        return Group(_line(head), table, _line(_keys(), style="dim"))

    def plain(self) -> str:
        """All connections with all columns as plain text."""
        rows, head = self._page(0, ADMIN_MAX_ROWS)
        lines = [[column.title for column in COLUMNS]]
        lines += [[column.value(row) for column in COLUMNS] for row in rows]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        text = [head]
        for cells in lines:
            text.append(
                "  ".join(
                    cell.rjust(width) if column.is_figure else cell.ljust(width)
                    for cell, width, column in zip(cells, widths, COLUMNS, strict=True)
                ).rstrip()
            )
        return "\n".join(text)

    def _page(self, offset: int, limit: int) -> tuple[list[Row], str]:
        query = {"sort": self.sort, "limit": str(limit), "offset": str(offset)}
        if self.protocol is not None:
            query["protocol"] = self.protocol
        page = self._client.get(f"/api/v1/connections?{urlencode(query)}")
        status = self._client.get("/api/v1/status")
        self._total = min(page["total"], ADMIN_MAX_ROWS)
        beyond = f" (the first {self._total} listed)" if page["total"] > self._total else ""
        head = (
            f"quicedge {status['version']} {status['state']}, "
            f"{_counted(page['total'], self._kind)}{beyond}, "
            f"{_counted(len(status['workers']), 'worker')}, by {_order(self.sort)}"
        )
        return page["connections"], head

    @property
    def _kind(self) -> str:
        name = _PROTOCOLS.get(self.protocol or "")
        return f"{name} connection" if name else "connection"

    def _detail(self, connection_id: str) -> RenderableType:
        row = self._client.get(f"/api/v1/connections/{quote(connection_id)}")
        self._remember([row])
        lines = self._lines(row)
        self._total = len(lines)
        self.first = max(0, min(self.first, len(lines) - self.rows))
        shown = lines[self.first : self.first + self.rows]
        below = len(lines) - self.first - len(shown)
        keys = "j/k move  space, PgUp, PgDn page  b back  q quit"
        return Group(*shown, _line(f"{keys}  ({below} lines below)" if below else keys, "dim"))

    def _lines(self, row: Row) -> list[Text]:
        """The details of a connection as lines."""
        rtts, windows = self._past[row["id"]]
        lines = [
            _fact("RTT", sparkline(rtts), "cyan"),
            _fact("window", sparkline(windows), "magenta"),
        ]
        left = {name: value for name, value in row.items() if _is_fact(name, value)}
        for title, about in SECTIONS:
            names = [name for name in left if about.search(name)]
            if names:
                lines.append(_line(title, style="bold"))
            for name in names:
                lines += _facts(name, left.pop(name))
        streams = row["streams"] or ()
        if streams:
            lines.append(_line("Streams", style="bold"))
        for stream in streams:
            asked = f"{stream['method']} {stream['path']} {stream['status'] or ''}"
            lines.append(_fact(f"stream {stream['stream_id']}", escape(asked)))
        return lines

    def _remember(self, rows: list[Row]) -> None:
        for row in rows:
            past = self._past.setdefault(row["id"], (deque(maxlen=_POINTS), deque(maxlen=_POINTS)))
            if row["smoothed_rtt"] is not None:
                past[0].append(row["smoothed_rtt"])
            if row["congestion_window"] is not None:
                past[1].append(row["congestion_window"])
        while len(self._past) > _REMEMBERED:
            del self._past[next(iter(self._past))]


def _keys() -> str:
    """What keys do, in 80 columns."""
    sorts = "  ".join(f"{key} {name}" for key, (_, name) in SORTS.items())
    return f"{sorts}  p proto  j/k  ⏎ open  q quit"


def _order(sort: str) -> str:
    """Describe a sort order of the API (`-FIELD`: descending)."""
    field = sort.removeprefix("-")
    name = next((name for known, name in SORTS.values() if known == field), field)
    return f"{name} {'↓' if sort.startswith('-') else '↑'}"


def _line(text: str, style: str = "") -> Text:
    """One line, truncated to the width of the screen."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _is_fact(name: str, value: Any) -> bool:
    """Whether a member is shown as a line, unlike paths, streams and parameters."""
    if value is None or name == "time" or name.endswith("_parameters"):
        return False
    return not isinstance(value, list) or all(isinstance(item, str) for item in value)


def _facts(name: str, value: Any) -> list[Text]:
    words = name.removesuffix("_seconds").replace("_", " ")
    if isinstance(value, dict):
        unit = name if name.endswith("_seconds") else ""
        return [
            _fact(f"{words}: {key.replace('_', ' ')}", escape(formatted(unit or key, each)))
            for key, each in value.items()
        ]
    if isinstance(value, list):
        return [_fact(words, escape(" ".join(value)) or "-")]
    return [_fact(words, escape(formatted(name, value)))]


def _fact(name: str, value: str, style: str = "") -> Text:
    line = _line(f"{name:<30} ", style="dim")
    return Text.assemble(line, (value, style), no_wrap=True, overflow="ellipsis")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
