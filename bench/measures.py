"""What is measured of a server: CPU time per unit of work, latencies and memory, by protocol.

Every measure returns figures by name; `TITLES` explains each name. Names begin with the protocol,
`common` for what has none.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import loads
from bench.proxies import Kind, Proxy

DOWN, DOWN_SLOW = 300_000_000, 30_000_000
UP, UP_SLOW = 200_000_000, 10_000_000
REQUESTS, REQUESTS_SLOW = 20_000, 1000
RATE_REQUESTS = 3000
RATE_CONNECTIONS = 50
HANDSHAKES = 300
HANDSHAKES_AT_ONCE = 8
IDLE, IDLE_SLOW = 500, 100
HTTP1_CONNECTIONS = 100

TITLES = {
    "common": {"resident_mb": "MB at start", "peak_mb": "MB after load"},
    "h3": {
        "request_us": "CPU us per small request",
        "rate_us": "CPU us per request at 1000 per second",
        "rate_p50_ms": "p50 ms at 1000 per second",
        "rate_p99_ms": "p99 ms at 1000 per second",
        "down_s": "CPU s per GB down",
        "up_s": "CPU s per GB up",
        "handshake_ms": "CPU ms per handshake",
        "idle_kb": "KB per idle connection",
    },
    "h2": {
        "request_us": "CPU us per small request",
        "rate_us": "CPU us per request at 1000 per second",
        "rate_p50_ms": "p50 ms at 1000 per second",
        "rate_p99_ms": "p99 ms at 1000 per second",
        "down_s": "CPU s per GB down",
        "up_s": "CPU s per GB up",
        "handshake_ms": "CPU ms per TLS handshake",
        "idle_kb": "KB per idle connection",
    },
    "http/1.1": {
        "request_us": "CPU us per small request, 100 connections",
        "down_s": "CPU s per GB down",
        "up_s": "CPU s per GB up",
    },
}


def spent(proxy: Proxy, work: Callable[[], object]) -> float:
    """CPU seconds of the server while `work` runs."""
    before = proxy.cpu_seconds()
    work()
    return proxy.cpu_seconds() - before


def take(kind: Kind, proxy: Proxy) -> dict[str, float]:
    """All figures of one server; names as `PROTOCOL NAME`."""
    figures = {"common resident_mb": proxy.resident_bytes() / 1e6}
    # First, before other loads leave freed memory that could be reused.
    for protocol in kind.protocols:
        if "idle_kb" in TITLES[protocol]:
            count = IDLE_SLOW if kind.slow else IDLE
            figures[f"{protocol} idle_kb"] = _idle(proxy, protocol, count)
    for protocol in kind.protocols:
        taken = _transfers(kind, proxy, protocol) | _requests(kind, proxy, protocol)
        if "handshake_ms" in TITLES[protocol]:
            taken["handshake_ms"] = _handshake(proxy, protocol)
        if "rate_us" in TITLES[protocol] and not kind.slow:
            taken |= _fixed_rate(proxy, protocol)
        figures |= {f"{protocol} {name}": figure for name, figure in taken.items()}
    figures["common peak_mb"] = proxy.resident_bytes() / 1e6
    return figures


def _idle(proxy: Proxy, protocol: str, count: int) -> float:
    before = proxy.resident_bytes()
    with loads.idle(proxy, count, protocol):
        return (proxy.resident_bytes() - before) / count / 1e3


def _transfers(kind: Kind, proxy: Proxy, protocol: str) -> dict[str, float]:
    down, up = (DOWN_SLOW, UP_SLOW) if kind.slow else (DOWN, UP)
    return {
        "down_s": spent(proxy, lambda: loads.download(proxy, protocol, down)) / down * 1e9,
        "up_s": spent(proxy, lambda: loads.upload(proxy, protocol, up)) / up * 1e9,
    }


def _requests(kind: Kind, proxy: Proxy, protocol: str) -> dict[str, float]:
    """Saturated: 10 connections of 10 concurrent requests; HTTP/1.1: 100 connections."""
    total = REQUESTS_SLOW if kind.slow else REQUESTS
    if protocol == "h3":
        cpu, _ = loads.measured(proxy, "requests", connections=10, streams=10, total=total)
    else:
        connections, streams = (10, 10) if protocol == "h2" else (HTTP1_CONNECTIONS, 1)
        cpu = spent(proxy, lambda: loads.h2load(proxy, protocol, total, connections, streams))
    return {"request_us": cpu / total * 1e6}


def _fixed_rate(proxy: Proxy, protocol: str) -> dict[str, float]:
    cpu, found = loads.measured(
        proxy, "rate", protocol, connections=RATE_CONNECTIONS, total=RATE_REQUESTS
    )
    return {
        "rate_us": cpu / RATE_REQUESTS * 1e6,
        "rate_p50_ms": found["p50_ms"],
        "rate_p99_ms": found["p99_ms"],
    }


def _handshake(proxy: Proxy, protocol: str) -> float:
    def load() -> None:
        loads.go(proxy, "handshakes", protocol, connections=HANDSHAKES_AT_ONCE, total=HANDSHAKES)

    return spent(proxy, load) / HANDSHAKES * 1e3
