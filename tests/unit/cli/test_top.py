"""What `quicedge top` shows, in terminals of all sizes and in a pipe."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import asdict
from rich.console import Console

from quicedge.cli.top import split_keys
from quicedge.cli.topscreen import Screen
from quicedge.cli.units import formatted, octets, sparkline
from quicedge.telemetry.stats import ConnectionStats


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("smoothed_rtt", 0.0004717731372269546, "0.5 ms"),
        ("age_seconds", 75.04, "75.0 s"),
        ("idle_seconds", 0.25, "250.0 ms"),
        ("delivery_rate", 149683245.01, "150 Mbit/s"),
        ("congestion_window", 16811, "16.8 KB"),
        ("packets_sent", 44585, "44585"),
        ("created_at", 1795528002.0066586, "2026-11-24 13:46:42 UTC"),
        ("retry", False, "False"),
        ("sni", "localhost", "localhost"),
    ],
)
def test_statistics_have_units(name: str, value: Any, expected: str) -> None:
    assert formatted(name, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(999, "999 B"), (999.7, "1 KB"), (1000, "1 KB"), (999_999, "1 MB"), (None, "-")],
)
def test_sizes_change_their_unit_before_they_need_an_exponent(value: Any, expected: str) -> None:
    assert octets(value) == expected


def row(number: int = 0, **members: Any) -> dict[str, Any]:
    return asdict(
        ConnectionStats(
            **{
                "id": f"{number:04x}abcdef012345", "worker": 0, "time": 1.0,
                "remote_address": f"192.0.2.7:{40000 + number}", "sni": "www.example.com",
                "state": "connected", "protocol": "h3", "smoothed_rtt": 0.1234,
                "congestion_window": 16811, "bytes_in_flight": 9100,
                "delivery_rate": 149683245.0, "packets_lost": 12345,
                "requests": 17, "bytes_sent": 123_400_000, **members,
            }
        )
    )  # fmt: skip


class Api:
    """The admin API of an edge with these connections."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)

    def get(self, path: str) -> Any:
        url = urlsplit(path)
        if url.path == "/api/v1/status":
            return {"version": "1", "state": "running", "workers": [{}, {}]}
        if url.path == "/api/v1/connections":
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            start = int(query["offset"])
            wanted = query.get("protocol")
            rows = [row for row in self.rows if wanted in (None, row["protocol"])]
            page = rows[start : start + int(query["limit"])]
            return {"connections": page, "total": len(rows)}
        return next(row for row in self.rows if url.path.endswith(row["id"]))


def shown(screen: Screen) -> list[str]:
    console = Console(width=screen.width, height=screen.height, color_system=None)
    with console.capture() as capture:
        console.print(screen.draw())
    return capture.get().splitlines()


def screen_of(*rows: dict[str, Any], width: int = 80, height: int = 24) -> Screen:
    return Screen(Api(*rows), width, height)  # type: ignore[arg-type]


def test_eighty_columns_hold_the_figures_and_an_id_without_a_cut() -> None:
    lines = shown(screen_of(row()))
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) == 4, "no line is broken in two"
    assert lines[0].endswith("1 connection, 2 workers, by start ↓")
    assert lines[3].endswith("q quit"), "no key is cut off"
    assert lines[1].split() == ["RTT", "window", "delivery", "lost", "req", "sent", "on", "ID",
                                "client"]  # fmt: skip
    cells = re.split(r"\s{2,}", lines[2].strip())
    assert cells == ["123.4 ms", "16.8 KB", "150 Mbit/s", "12345", "17", "123 MB", "h3", "0000abcd",
                     "192.0.2.7:40000"]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "titles"),
    [(100, ["in flight", "state"]), (120, ["in flight", "server name"])],
)
def test_wider_terminals_show_more(width: int, titles: list[str]) -> None:
    lines = shown(screen_of(row(), width=width))
    assert all(title in lines[1] for title in titles)
    assert all(len(line) <= width for line in lines)


def test_p_shows_one_protocol_after_the_other() -> None:
    protocols = ("h3", "h2", "h2", "http/1.1")
    screen = screen_of(*(row(n, protocol=name) for n, name in enumerate(protocols)), width=100)
    seen = []
    for _ in range(5):
        lines = shown(screen)
        seen.append((re.findall(r" (h\d) ", "\n".join(lines[2:-1])), lines[0].split(", ")[1]))
        screen.press("p")
    assert seen == [
        (["h3", "h2", "h2", "h1"], "4 connections"),
        (["h3"], "1 h3 connection"),
        (["h2", "h2"], "2 h2 connections"),
        (["h1"], "1 h1 connection"),
        (["h3", "h2", "h2", "h1"], "4 connections"),
    ]


def test_a_connection_without_kernel_facts_is_shown_with_dashes() -> None:
    bare = row(
        transport="tcp", protocol="h2", smoothed_rtt=None, congestion_window=None,
        bytes_in_flight=None, delivery_rate=None, packets_lost=None,
    )  # fmt: skip
    screen = screen_of(bare, width=160)
    assert shown(screen)[2].split()[:5] == ["-"] * 5
    screen.press("\r")
    assert shown(screen)


def test_wide_terminals_have_sparklines() -> None:
    screen = screen_of(row(), width=160)
    shown(screen)
    assert "▁▁" in shown(screen)[2]
    assert "▁" not in shown(screen_of(row(), width=80))[2]


def test_a_pipe_gets_every_connection_whole_on_one_line() -> None:
    name = "a-server-name-longer-than-any-column-of-a-terminal.example.com"
    rows = [row(number, sni=name) for number in range(50)]
    lines = screen_of(*rows).plain().splitlines()
    assert len(lines) == 2 + len(rows)
    for line, each in zip(lines[2:], rows, strict=True):
        assert each["id"] in line
        assert name in line
        assert each["remote_address"] in line


def ids(lines: list[str]) -> list[int]:
    return [
        int(found[1], 16) for line in lines if (found := re.search(r" ([0-9a-f]{4})abcd ", line))
    ]


def test_the_cursor_scrolls_through_more_connections_than_fit() -> None:
    screen = screen_of(*(row(number) for number in range(30)), height=13)
    assert ids(shown(screen)) == list(range(10))
    for _ in range(12):
        assert screen.press("j")
    assert ids(shown(screen)) == list(range(3, 13))
    screen.press("\x1b[6~")
    assert ids(shown(screen))[-1] == 21
    screen.press("G")
    assert ids(shown(screen)) == list(range(20, 30))
    screen.press("k")
    assert ids(shown(screen)) == list(range(20, 30)), "the marked one is still shown"
    screen.press("g")
    assert ids(shown(screen)) == list(range(10))


def test_a_list_that_becomes_shorter_scrolls_back() -> None:
    api = Api(*(row(number) for number in range(30)))
    screen = Screen(api, 80, 13)  # type: ignore[arg-type]
    shown(screen)
    screen.press("G")
    shown(screen)
    del api.rows[5:]
    assert ids(shown(screen)) == list(range(5))
    assert screen.cursor == 4


def test_enter_opens_the_marked_connection_of_a_scrolled_list() -> None:
    rows = [row(number) for number in range(30)]
    screen = screen_of(*rows, height=13)
    shown(screen)
    for _ in range(25):
        screen.press("j")
    shown(screen)
    screen.press("\r")
    assert screen.chosen == rows[25]["id"]
    shown(screen)
    screen.press("b")
    assert screen.chosen is None
    assert 25 in ids(shown(screen))


def test_the_detail_has_the_figures_first_and_scrolls_to_the_rest() -> None:
    streams = [{"stream_id": 4 * n, "method": "GET", "path": f"/{n}", "status": 200}
               for n in range(40)]  # fmt: skip
    screen = screen_of(row(streams=streams, packets_dropped={"duplicate": 3}), height=24)
    shown(screen)
    screen.press("\n")
    first = shown(screen)
    assert len(first) == 24
    text = "\n".join(first)
    for figure in ("smoothed rtt", "123.4 ms", "congestion window", "16.8 KB", "delivery rate"):
        assert figure in text
    assert "lines below" in first[-1]
    seen = list(first)
    while "lines below" in shown(screen)[-1]:
        screen.press(" ")
        seen += shown(screen)
    text = "\n".join(seen)
    assert "GET /39" in text
    assert re.search(r"packets dropped: duplicate +3", text)
    assert "www.example.com" in text
    screen.press("g")
    assert shown(screen)[2:] == first[2:], "the sparklines grow"


def test_the_detail_tells_what_limited_the_connection_in_seconds() -> None:
    limits = {"congestion_control": 12.3, "loss_recovery": 0.05}
    one = row(sending_limited_seconds=limits, limited_by="congestion_control")
    screen = screen_of(one, height=200)
    screen.chosen = one["id"]
    text = "\n".join(shown(screen))
    assert re.search(r"sending limited: congestion control +12\.3 s", text)
    assert re.search(r"sending limited: loss recovery +50\.0 ms", text)
    assert "congestion control" in shown(screen_of(one, width=160))[2]


def test_the_detail_escapes_what_clients_chose_and_leaves_out_what_is_unknown() -> None:
    streams = [{"stream_id": 0, "method": "GET", "path": "/\x1b", "status": 200}]
    screen = screen_of(row(sni="\x1b[31mred", cipher=None, streams=streams), height=200)
    shown(screen)
    screen.press("\r")
    text = "\n".join(shown(screen))
    assert "\x1b" not in text
    assert "cipher" not in text
    assert "GET /" in text


def test_keys_sort_and_quit() -> None:
    screen = screen_of(row())
    assert screen.press("r")
    assert screen.sort == "-smoothed_rtt"
    assert screen.press("r")
    assert screen.sort == "smoothed_rtt"
    assert screen.press("?")
    assert not screen.press("q")


def test_what_a_terminal_sends_is_split_into_keys() -> None:
    assert split_keys("jj\x1b[Bq") == ["j", "j", "\x1b[B", "q"]
    assert split_keys("\x1b") == ["\x1b"]
    assert split_keys("\x1b[5~\x1b[6~") == ["\x1b[5~", "\x1b[6~"]


def test_sparklines() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0, 2.0, 3.0]) == "▁▄█"
    assert sparkline([5.0, 5.0]) == "▁▁"
