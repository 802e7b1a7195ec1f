"""What `quicedge top` says of one connection."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from rich.console import Console

from quicedge.cli.top import Screen, sparkline, told


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
    assert told(name, value) == expected


class Answers:
    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row

    def get(self, path: str) -> Any:
        return self.row


def test_the_detail_names_what_is_known_and_escapes_what_clients_chose() -> None:
    row = {
        "id": "ab", "smoothed_rtt": 0.02, "congestion_window": 12000, "time": 1.0,
        "sni": "\x1b[31mred", "cipher": None, "packets_lost": 3,
        "streams": [{"stream_id": 0, "method": "GET", "path": "/\x1b", "status": 200}],
    }  # fmt: skip
    screen = Screen(Answers(row), rows=10)  # type: ignore[arg-type]
    screen.chosen = "ab"
    console = Console(width=100, record=True, color_system=None)
    with console.capture() as capture:
        console.print(screen.draw())
    shown = capture.get()
    assert "20.0 ms" in shown
    assert "12 KB" in shown
    assert "\x1b" not in shown
    assert "cipher" not in shown, "not known"
    assert "GET /" in shown


def test_sparklines() -> None:
    assert sparkline(deque()) == ""
    assert sparkline(deque([1.0, 2.0, 3.0])) == "▁▄█"
    assert sparkline(deque([5.0, 5.0])) == "▁▁"
