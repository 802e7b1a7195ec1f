"""`make bench ARGS=growth`: how CPU time per request grows with the amount of work, over HTTP/3.

One axis grows at a time. Work that grows linearly costs the same per request however much there is
of it or, where the request itself grows (bodies, fields), at most in proportion.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench import environment, loads, proxies, report
from bench.loads import LOAD_CORE
from bench.proxies import ROOT, Kind, Proxy, Setting, pinned
from bench.python_build import Build

REQUESTS = 4000
PER_CONNECTION = 20
"""Requests on each of many connections, at least: fewer would measure how a connection begins."""
LARGEST_LOAD = 100_000_000
"""Body bytes per measurement, at most."""
NOISE = 1.25
"""A figure may exceed the linear prediction by this factor."""
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
CHART = "growth.png"

Cost = Callable[[Proxy, int], float]
"""CPU microseconds per request, given the value of the axis."""


@dataclass(frozen=True)
class Axis:
    """One dimension along which the work grows."""

    name: str
    title: str
    values: tuple[int, ...]
    cost: Cost
    in_proportion: bool = False
    """A single request grows with the value."""
    restart: bool = False
    """Each value needs a server configured for it (`configured`); quicedge only."""

    def excess(self, costs: Mapping[int, float]) -> list[int]:
        """Values whose cost grew faster than linearly from a smaller value."""
        found = []
        for value in costs:
            smaller = [known for known in costs if known < value]
            growth = value / smaller[-1] if smaller and self.in_proportion else 1.0
            if smaller and costs[value] > min(map(costs.__getitem__, smaller)) * NOISE * growth:
                found.append(value)
        return found


def _load(
    proxy: Proxy,
    *,
    connections: int = 10,
    streams: int = 10,
    size: int = 100,
    fields: int = 5,
    total: int = REQUESTS,
) -> float:
    """Cost of requests; their number is a multiple of connections x streams."""
    at_once = connections * streams
    total = max(total // at_once, 1) * at_once
    cpu, _ = loads.measured(
        proxy, "requests", connections=connections, streams=streams, total=total, size=size,
        fields=fields,
    )  # fmt: skip
    return cpu / total * 1e6


def _beside_idle(proxy: Proxy, idle: int) -> float:
    with loads.idle(proxy, idle, "h3") if idle else nullcontext():
        return _load(proxy)


def _body(proxy: Proxy, size: int) -> float:
    return _load(proxy, size=size, streams=1, total=min(REQUESTS, LARGEST_LOAD // size))


def _loss(proxy: Proxy, percent: int) -> float:
    with _lossy(proxy, percent / 100) as lossy:
        return _load(lossy, connections=4, streams=1, size=1_000_000, total=40)


@contextmanager
def _lossy(proxy: Proxy, loss: float) -> Iterator[Proxy]:
    """The same server behind a path that loses datagrams both ways."""
    never = 1e9  # rebindings are not part of this measure
    command = [sys.executable, "-m", "bench.lossy", str(proxy.port), str(loss), str(never)]
    with subprocess.Popen(
        pinned(command, LOAD_CORE), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as forwarder:
        assert forwarder.stdout is not None
        yield replace(proxy, port=json.loads(forwarder.stdout.readline())["port"])
        forwarder.communicate()


AXES = (
    Axis("connections_1", "connections with 1 stream each", (1, 10, 100, 1000),
         lambda proxy, value: _load(proxy, connections=value, streams=1,
                                    total=max(REQUESTS, PER_CONNECTION * value))),
    # Not 1000: ten thousand requests at once are more than may wait for one origin (503).
    Axis("connections_10", "connections with 10 streams each", (1, 10, 100),
         lambda proxy, value: _load(proxy, connections=value,
                                    total=max(REQUESTS, PER_CONNECTION * value))),
    Axis("streams", "streams on one connection", (1, 10, 100),
         lambda proxy, value: _load(proxy, connections=1, streams=value)),
    Axis("body", "bytes of the body", (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000), _body,
         in_proportion=True),
    Axis("fields", "request fields", (5, 20, 60),
         lambda proxy, value: _load(proxy, fields=value), in_proportion=True),
    Axis("routes", "routes", (1, 10, 100, 1000, 5000), lambda proxy, _: _load(proxy), restart=True),
    Axis("idle", "idle connections beside", (0, 300, 1000, 3000), _beside_idle),
    Axis("loss", "% loss (1 MB bodies)", (0, 1, 3), _loss),
)  # fmt: skip


def configured(axis: Axis, kind: Kind, value: int) -> Kind | None:
    """The server for one value of an axis that needs its own; None if it cannot be configured."""
    if not axis.restart:
        return kind
    if kind.name not in ("quicedge", "quicedge_pure"):
        return None
    # Of one host: the worst case, because hosts are found by name.
    routes = "".join(
        f'[[routes]]\nupstream = "origin"\npath = "/route/{number}/"\n' for number in range(value)
    )

    def command(setting: Setting, port: int) -> list[str]:
        found = kind.command(setting, port)
        config = Path(found[-1])
        config.write_text(config.read_text() + routes)
        return found

    return replace(kind, command=command)


def measure(axis: Axis, kind: Kind, setting: Setting, rounds: int) -> dict[int, float]:
    """Median cost by value, without values that the server cannot be configured for or fails at.

    A failure of quicedge itself raises WrongAnswer.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for value in axis.values:
        server = configured(axis, kind, value)
        if server is None:
            return {}
        try:
            with environment.serving(server, setting) as proxy:
                for _ in range(rounds):
                    found[value].append(axis.cost(proxy, value))
        except (loads.WrongAnswer, subprocess.TimeoutExpired) as error:
            if kind.name.startswith("quicedge"):
                raise
            print(f"{kind.label} fails with {value} {axis.title}: {error}", flush=True)
            found.pop(value, None)
    return {value: statistics.median(costs) for value, costs in found.items()}


Results = dict[str, dict[Kind, dict[int, float]]]


def markdown(results: Results, rounds: int, build: Build) -> str:
    """One table per axis; figures above the linear prediction are bold."""
    lines = [
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `make bench ARGS=growth` on {build}:"
        f" CPU microseconds per request, medians of {rounds}. Bold: more than {NOISE} times what"
        " linear growth predicts.",
        "",
        f"![CPU time per request as the work grows]({CHART})",
    ]
    for axis in AXES:
        lines += ["", *report.table_head(axis.title, *(f"{v:,}" for v in axis.values))]
        for kind, costs in results[axis.name].items():
            excess = axis.excess(costs)
            cells = [
                "failed"
                if value not in costs
                else f"**{costs[value]:,.0f}**"
                if value in excess
                else f"{costs[value]:,.0f}"
                for value in axis.values
            ]
            lines.append(report.table_row(kind.label, *cells))
    return "\n".join(lines) + "\n"


def _short(value: int) -> str:
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= unit:
            return f"{value // unit}{letter}"
    return str(value)


def chart(path: Path, results: Results) -> None:
    """Cost by value, one panel per axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, len(AXES) // 2, figsize=(15, 7))
    for panel, axis in zip(panels.flat, AXES, strict=True):
        for kind, costs in results[axis.name].items():
            places = [axis.values.index(value) for value in costs]
            panel.plot(places, list(costs.values()), "o-", label=kind.label)
        panel.set_xticks(range(len(axis.values)), [_short(value) for value in axis.values])
        if axis.in_proportion and axis.values[-1] > 1000 * axis.values[0]:
            panel.set_yscale("log")
        else:
            panel.set_ylim(bottom=0)
        panel.set_title(axis.title, fontsize=10)
        panel.set_ylabel("CPU us per request", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(kinds: list[Kind], build: Build, rounds: int, *, write: bool) -> None:
    """Measure every axis of every server that speaks HTTP/3 in front of the origin."""
    kinds = [kind for kind in kinds if "h3" in kind.protocols and not kind.is_origin]
    results: Results = {}
    with environment.setting() as setting:
        for axis in AXES:
            results[axis.name] = {}
            for kind in kinds:
                try:
                    costs = measure(axis, kind, setting, rounds)
                except (loads.WrongAnswer, subprocess.TimeoutExpired) as error:
                    sys.exit(f"bench: {kind.label}: {axis.title}: {error}")
                if costs:
                    results[axis.name][kind] = costs
                    print(axis.name, kind.label, {v: round(c, 1) for v, c in costs.items()},
                          flush=True)  # fmt: skip
    text = markdown(results, rounds, build)
    print("\n" + text)
    if write:
        report.replace_section(proxies.ROOT / "bench/RESULTS.md", BEGIN, END, text)
        chart(proxies.ROOT / "bench" / CHART, results)
