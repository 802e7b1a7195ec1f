"""`make bench ARGS=apps`: one ASGI application under quicedge, uvicorn and hypercorn.

Each server runs it in one process on one core, with TLS, over the protocols that it speaks; the
load comes from another core and checks every response. What counts is the number of requests
answered per second of CPU time, that of the server and of the application together.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

from bench import environment, loads, python_build, report
from bench.proxies import ALL, ROOT, Kind, Setting, hypercorn, quicedge
from bench.python_build import Build

BEGIN, END = "<!-- apps: begin -->", "<!-- apps: end -->"
APPLICATION = "bench.application:app"
REQUESTS, REQUESTS_SLOW = 12_000, 3000


@dataclass(frozen=True)
class Load:
    """Requests of one kind."""

    title: str
    size: int
    share: float = 1.0
    """Of the number of requests."""


LOADS = (Load("100 bytes", 100), Load("100 KB", 100_000, share=0.1))
CONNECTIONS = {"h3": (10, 10), "h2": (10, 10), "http/1.1": (100, 1)}
"""Connections, and concurrent requests on each."""

Key = tuple[str, Load]
Figures = dict[Kind, dict[Key, list[float]]]
"""Requests per CPU second by protocol and load."""


def kinds(python: str) -> list[Kind]:
    """The servers that run the application, on the same interpreter."""
    served = quicedge(python, upstream=f'asgi = "{APPLICATION}"\napp_directory = "{ROOT}"')
    return [
        served,
        Kind(
            "uvicorn",
            f"uvicorn {version('uvicorn')}",
            partial(_uvicorn, python=python),
            ("http/1.1",),
        ),
        Kind(
            "hypercorn",
            f"hypercorn {version('hypercorn')}",
            partial(hypercorn, python=python),
            slow=True,
        ),
    ]


def _uvicorn(setting: Setting, port: int, python: str) -> list[str]:
    return [
        python, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port),
        "--loop", "uvloop", "--http", "httptools", "--lifespan", "off", "--no-access-log",
        "--ssl-certfile", str(setting.cert), "--ssl-keyfile", str(setting.key), APPLICATION,
    ]  # fmt: skip


def take(kind: Kind, setting: Setting) -> tuple[dict[Key, float], float]:
    """Requests per CPU second of one server, and its memory after all loads in MB."""
    found: dict[Key, float] = {}
    with environment.serving(kind, setting) as server:
        for protocol in kind.protocols:
            connections, streams = CONNECTIONS[protocol]
            for load in LOADS:
                total = int((REQUESTS_SLOW if kind.slow else REQUESTS) * load.share)
                total -= total % (connections * streams)
                cpu, _ = loads.measured(
                    server, "requests", protocol,
                    connections=connections, streams=streams, total=total, size=load.size,
                )  # fmt: skip
                found[protocol, load] = total / cpu
        return found, server.resident_bytes() / 1e6


def markdown(figures: Figures, memory: dict[Kind, list[float]], rounds: int, build: Build) -> str:
    """The table of RESULTS.md."""
    columns = [(protocol, load) for protocol in ALL for load in LOADS]
    lines = [
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `make bench ARGS=apps` on {build}:"
        f" requests per second of CPU time, medians of {rounds} rounds, minimum and maximum in"
        " brackets.",
        "",
        *report.table_head(
            "server",
            *(f"{protocol}, {load.title}" for protocol, load in columns),
            "MB after load",
        ),
    ]
    for kind, taken in figures.items():
        cells = [_cell(taken.get(key)) for key in columns]
        lines.append(report.table_row(kind.label, *cells, _cell(memory[kind])))
    return "\n".join(lines) + "\n"


def _cell(values: list[float] | None) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]"


def main(build: Build, rounds: int, *, write: bool) -> None:
    """Measure, print, and replace the section in RESULTS.md."""
    python_build.add(build, "uvicorn", "hypercorn", "httptools", "uvloop")
    servers = kinds(build.executable)
    figures: Figures = {kind: defaultdict(list) for kind in servers}
    memory: dict[Kind, list[float]] = {kind: [] for kind in servers}
    with environment.setting() as setting:
        for number in range(rounds):
            for kind in servers:
                try:
                    taken, resident = take(kind, setting)
                except (loads.WrongAnswer, subprocess.TimeoutExpired) as error:
                    sys.exit(f"bench: {kind.label}: {error}")
                for key, figure in taken.items():
                    figures[kind][key].append(figure)
                memory[kind].append(resident)
                shown = "  ".join(f"{p}/{load.size} {v:,.0f}" for (p, load), v in taken.items())
                print(f"round {number + 1}  {kind.label:18} {shown}", flush=True)
    text = markdown(figures, memory, rounds, build)
    print("\n" + text)
    if write:
        report.replace_section(ROOT / "bench" / "RESULTS.md", BEGIN, END, text)
