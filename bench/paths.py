"""`python -m bench.paths`: goodput and queue over emulated paths, beside quic-go and kernel TCP.

Two network namespaces are joined by `gopath` (rate, delay, drop-tail queue of one bandwidth-delay
product, random loss both ways); every sender is read by the same Go client. Needs root and TUN
devices. A path of 20 Mbit/s costs little CPU: the controller is measured, not the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench import environment, loads, report
from bench.proxies import ROOT, Setting, quicedge

RATE = 2_500_000
"""Bytes per second of the bottleneck: 20 Mbit/s."""
RTTS_MS = (20, 50, 100, 300)
LOSSES = (0.0, 0.01, 0.03)
LEAST_QUEUE = 30_000
"""Bytes; the bandwidth-delay product of a short path would hold but a few packets."""
SERVER, CLIENT = "10.213.0.1", "10.213.0.2"
PORT, RIVAL_PORT = 4433, 4434
ORIGIN_PORT = 8000
ENDLESS = 10_000_000_000
CONVERGENCE = 10.0
"""Seconds after which two flows must share the bottleneck."""
BEGIN, END = "<!-- paths: begin -->", "<!-- paths: end -->"


@dataclass(frozen=True)
class Sender:
    """A server and the congestion controller it sends with."""

    label: str
    server: str
    """`quicedge` or `go`."""
    controller: str
    protocol: str


SENDERS = (
    Sender("quicedge, cubic", "quicedge", "cubic", "h3"),
    Sender("quicedge, reno", "quicedge", "reno", "h3"),
    Sender("quicedge, bbr", "quicedge", "bbr", "h3"),
    Sender("quic-go, cubic", "go", "cubic", "h3"),
    Sender("kernel TCP, cubic", "go", "cubic", "h2"),
    Sender("kernel TCP, reno", "go", "reno", "h2"),
    Sender("kernel TCP, bbr", "go", "bbr", "h2"),
)


def allowed() -> tuple[list[Sender], list[str]]:
    """The senders whose controller may be chosen here, and why others cannot."""
    known = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    senders = [s for s in SENDERS if s.protocol == "h3" or s.controller in known]
    missing = [f"{s.label}: not allowed by this kernel" for s in SENDERS if s not in senders]
    return senders, missing


def command(*words: object) -> None:
    """Run a configuration command."""
    subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def path(rtt_ms: int, loss: float) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Namespaces of server and client, and a dict that gets the link's summary at the end."""
    server, client = f"bench-{os.getpid()}-s", f"bench-{os.getpid()}-c"
    queue = max(int(RATE * rtt_ms / 1e3), LEAST_QUEUE)
    summary: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for name in (server, client):
            command("ip", "netns", "add", name)
            stack.callback(command, "ip", "netns", "del", name)
        link = stack.enter_context(
            subprocess.Popen(
                [loads.built("gopath"), "-a", "bench-c", "-b", "bench-s", "-rate", str(RATE),
                 "-delay", f"{rtt_ms / 2}ms", "-queue", str(queue), "-loss", str(loss)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        assert link.stdout is not None
        if not link.stdout.readline():
            raise loads.WrongAnswer("gopath did not start")
        for device, name, own in (("bench-s", server, SERVER), ("bench-c", client, CLIENT)):
            command("ip", "link", "set", device, "netns", name)
            command("ip", "-n", name, "address", "add", f"{own}/24", "dev", device)
            for up in (device, "lo"):
                command("ip", "-n", name, "link", "set", up, "up")
        yield server, client, summary
        output, _ = link.communicate()
        summary |= json.loads(output)


RIVALRIES = (
    ("quicedge, cubic", "quic-go, cubic"),
    ("quicedge, cubic", "kernel TCP, reno"),
    ("quicedge, bbr", "quic-go, cubic"),
    ("quicedge, bbr", "kernel TCP, reno"),
    ("quicedge, bbr", "kernel TCP, bbr"),
)
"""Senders that compete for one bottleneck."""


@contextlib.contextmanager
def sending(sender: Sender, namespace: str, setting: Setting, port: int = PORT) -> Iterator[None]:
    """The sender's server in its namespace, with an origin of its own beside it."""
    inside = ["ip", "netns", "exec", namespace]
    if sender.protocol != "h3":
        controller = f"net.ipv4.tcp_congestion_control={sender.controller}"
        command(*inside, "sysctl", "-qw", controller)
    commands = []
    if sender.server == "go":
        commands.append([loads.built("goserver"), "-listen", f"{SERVER}:{port}",
                         "-cert", str(setting.cert), "-key", str(setting.key)])  # fmt: skip
    else:
        extra = f'[quic]\ncongestion_control = "{sender.controller}"\n'
        kind = quicedge(extra=extra)
        serve = kind.command(replace(setting, origin_port=ORIGIN_PORT), port)
        config = setting.directory / "quicedge.toml"
        config.write_text(config.read_text().replace(f"127.0.0.1:{port}", f"{SERVER}:{port}"))
        commands += [[sys.executable, "-m", "bench.origin", str(ORIGIN_PORT)], serve]
    with contextlib.ExitStack() as stack:
        for words in commands:
            process = stack.enter_context(
                subprocess.Popen([*inside, *words], cwd=ROOT, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
        yield


def goodput(
    sender: Sender,
    client: str,
    connections: int,
    interval: float,
    warm_up: float,
    measured: float,
    port: int = PORT,
) -> list[float]:
    """Bytes per second of each flow; retries until the server is up."""
    words = ["ip", "netns", "exec", client, loads.built("goload"), "-mode=goodput",
             f"-address={SERVER}:{port}", f"-protocol={sender.protocol}", f"-size={ENDLESS}",
             f"-connections={connections}", f"-interval={interval}s", f"-warm-up={warm_up}s",
             f"-measured={measured}s"]  # fmt: skip
    deadline = time.monotonic() + environment.START_TIMEOUT
    while True:
        done = subprocess.run(words, capture_output=True, text=True, timeout=loads.TIMEOUT)
        if not done.returncode:
            return list(json.loads(done.stdout).values())
        if time.monotonic() > deadline:
            raise loads.WrongAnswer(done.stderr.strip())
        time.sleep(0.2)


def single(sender: Sender, rtt_ms: int, loss: float, setting: Setting) -> tuple[float, float]:
    """Share of the bottleneck that one flow fills, and its mean queue in BDPs."""
    with path(rtt_ms, loss) as (server, client, summary), sending(sender, server, setting):
        warm_up = 2 + 10 * rtt_ms / 1e3
        (rate,) = goodput(sender, client, 1, 0, warm_up, 8)
    return rate / RATE, summary["mean_backlog_bytes"] / max(RATE * rtt_ms / 1e3, LEAST_QUEUE)


def shared(sender: Sender, setting: Setting, rtt_ms: int = 50) -> list[float]:
    """Shares of two flows, the second started 3 seconds later, from CONVERGENCE seconds on."""
    with path(rtt_ms, 0) as (server, client, _), sending(sender, server, setting):
        rates = goodput(sender, client, 2, 3, CONVERGENCE, 8)
    return [rate / RATE for rate in rates]


def rivals(first: Sender, second: Sender, setting: Setting, rtt_ms: int = 50) -> list[float]:
    """Shares of two different senders that start together, from CONVERGENCE seconds on."""
    with (
        path(rtt_ms, 0) as (server, client, _),
        sending(first, server, setting),
        sending(second, server, setting, RIVAL_PORT),
        ThreadPoolExecutor(2) as pool,
    ):
        for sender, port in ((first, PORT), (second, RIVAL_PORT)):
            goodput(sender, client, 1, 0, 0, 0.1, port)  # both servers are up
        flows = [
            pool.submit(goodput, sender, client, 1, 0, CONVERGENCE, 16, port)
            for sender, port in ((first, PORT), (second, RIVAL_PORT))
        ]
        rates = [flow.result()[0] for flow in flows]
    return [rate / RATE for rate in rates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--no-write", action="store_true", help="print, but keep RESULTS.md")
    options = parser.parse_args()
    if reasons := loads.missing():
        sys.exit("bench: " + "; ".join(reasons))
    senders, missing = allowed()
    columns = [(rtt, loss) for rtt in RTTS_MS for loss in LOSSES]
    lines = [
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `python -m bench.paths`: share of a"
        f" bottleneck of {RATE * 8 // 1_000_000} Mbit/s filled by one flow, and its mean queue in"
        " bandwidth-delay products (of at least 30 KB).",
        "",
        *report.table_head("sender", *(f"{rtt} ms, {loss:.0%}" for rtt, loss in columns)),
    ]
    with environment.setting() as setting:
        for sender in senders:
            cells = []
            for rtt, loss in columns:
                taken = [single(sender, rtt, loss, setting) for _ in range(options.rounds)]
                share, queue = (statistics.median(values) for values in zip(*taken, strict=True))
                cells.append(f"{share:.0%} / {queue:.2f}")
                print(sender.label, rtt, loss, cells[-1], flush=True)
            lines.append(report.table_row(sender.label, *cells))
        lines += [
            "",
            f"Two flows at 50 ms, {CONVERGENCE:.0f} seconds after the second one began:",
            "",
            *report.table_head("sender", "first", "second"),
        ]
        for sender in senders:
            taken = [shared(sender, setting) for _ in range(options.rounds)]
            first, second = (statistics.median(values) for values in zip(*taken, strict=True))
            lines.append(report.table_row(sender.label, f"{first:.0%}", f"{second:.0%}"))
            print(lines[-1], flush=True)
        lines += [
            "",
            f"Two different senders at 50 ms, {CONVERGENCE:.0f} seconds after both began:",
            "",
            *report.table_head("first, second", "first", "second"),
        ]
        by_label = {sender.label: sender for sender in senders}
        for pair in RIVALRIES:
            if not all(label in by_label for label in pair):
                continue
            one, two = (by_label[label] for label in pair)
            taken = [rivals(one, two, setting) for _ in range(options.rounds)]
            first, second = (statistics.median(values) for values in zip(*taken, strict=True))
            labels = f"{one.label}; {two.label}"
            lines.append(report.table_row(labels, f"{first:.0%}", f"{second:.0%}"))
            print(lines[-1], flush=True)
    lines += ["", *(f"Not measured: {line}." for line in missing)]
    text = "\n".join(lines) + "\n"
    print("\n" + text)
    if not options.no_write:
        report.replace_section(ROOT / "bench/RESULTS.md", BEGIN, END, text)


if __name__ == "__main__":
    main()
