"""Congestion controllers on a virtual clock: throughput and queue by loss and round-trip time, and
the time that a download takes over a lossy path beside the time that CUBIC's law asks.

`python -m bench.congestion` prints the tables of RESULTS.md; seconds of traffic take seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import mean
from typing import Any

from aioquic.quic.events import StreamDataReceived

from tests.support.quicpair import has_stream, is_confirmed, make_pair, unsent
from tests.support.simnet import Link

RATE = 2_500_000
"""Bytes per second of the bottleneck: 20 Mbit/s."""
LOSSES = (0.0, 0.01, 0.03)
RTTS = (0.02, 0.1, 0.3)
CONTROLLERS = ("cubic", "reno", "bbr")
WARM_UP = 2.0
MEASURED = 8.0
ENDLESS = 1 << 30
DOWNLOAD = 2_000_000
"""Bytes of a download over a lossy path."""
DOWNLOAD_LOSS = 0.02
DOWNLOAD_RTTS = (0.03, 0.08)
PAYLOAD = 1440
"""Stream bytes of a full packet."""


@dataclass
class Outcome:
    """Of one flow while it was measured."""

    utilization: float
    """Stream bytes delivered, as a share of the bottleneck's rate."""
    queue: float
    """Mean bytes that waited for the link, in bandwidth-delay products."""


class Flow:
    """A server that always has something to send, and what its client got."""

    def __init__(
        self,
        controller: str,
        down: Link,
        up: Link,
        seed: int,
        stock: bool,
        *,
        endless: bool = True,
    ) -> None:
        options = {"max_data": ENDLESS, "max_stream_data": ENDLESS}
        self.pair = make_pair(
            up,
            down,
            seed=seed,
            client_options=options,
            server_options={"congestion_control_algorithm": controller},
            stock_server=stock,
        )
        self.received = 0
        self.pair.client.on_event = self._count
        server, client = self.server, self.pair.client.connection
        self.pair.run(lambda: is_confirmed(server) and is_confirmed(client))
        client.send_stream_data(0, b"?")
        self.pair.run(lambda: has_stream(server, 0))
        if endless:
            self.refill()

    @property
    def server(self) -> Any:
        return self.pair.server.connection

    def _count(self, event: object) -> None:
        if isinstance(event, StreamDataReceived):
            self.received += len(event.data)

    def refill(self) -> None:
        """Keep some seconds of data waiting."""
        if unsent(self.server, 0) < RATE:
            self.server.send_stream_data(0, bytes(2 * RATE))


def run(flows: list[Flow], link: Link, seconds: float) -> float:
    """Advance all flows together; returns the mean backlog of the link in bytes."""
    now = max(flow.pair.now for flow in flows)
    end = now + seconds
    area = 0.0
    while True:
        flow = min(flows, key=lambda flow: flow.pair.next_moment())
        if flow.pair.next_moment() > end:
            return area / seconds
        flow.pair.step(end)
        flow.refill()
        moment = max(now, flow.pair.now)
        area += link.backlog(moment) * (moment - now)
        now = moment


def single(controller: str, loss: float, rtt: float, *, stock: bool = False) -> Outcome:
    """One flow alone, over a queue of one bandwidth-delay product."""
    bdp = max(RATE * rtt, 30_000)
    down = Link(delay=rtt / 2, loss=loss, rate=RATE, queue=int(bdp))
    flow = Flow(controller, down, Link(delay=rtt / 2), 1, stock)
    run([flow], down, WARM_UP + 10 * rtt)
    before = flow.received
    backlog = run([flow], down, MEASURED)
    return Outcome((flow.received - before) / MEASURED / RATE, backlog / bdp)


def shared(first: str, second: str, rtt: float = 0.05) -> tuple[float, float]:
    """Shares of the bottleneck that two flows get; the second one comes two seconds later."""
    down = Link(delay=rtt / 2, rate=RATE, queue=int(RATE * rtt))
    flows = [Flow(first, down, Link(delay=rtt / 2), 1, False)]
    run(flows, down, WARM_UP)
    late = Flow(second, down, Link(delay=rtt / 2), 2, False)
    flows.append(late)
    run(flows, down, 3 * WARM_UP)
    before = [flow.received for flow in flows]
    run(flows, down, 2 * MEASURED)
    got = [flow.received - start for flow, start in zip(flows, before, strict=True)]
    return got[0] / 2 / MEASURED / RATE, got[1] / 2 / MEASURED / RATE


def download(
    controller: str, rtt: float, seed: int, nbytes: int = DOWNLOAD
) -> tuple[float, dict[str, int]]:
    """Seconds of a download with loss both ways, and what recovery counted on it."""
    random.seed(seed)  # which packet numbers are skipped
    link = {"delay": rtt / 2, "loss": DOWNLOAD_LOSS}
    flow = Flow(controller, Link(**link), Link(**link), seed, False, endless=False)
    pair, recovery = flow.pair, flow.server.recovery
    start = pair.now
    flow.server.send_stream_data(0, bytes(nbytes))
    pair.run(lambda: flow.received == nbytes)
    return pair.now - start, {
        "lost": recovery.packets_lost,
        "spuriously lost": recovery.packets_spuriously_lost,
        "probe timeouts": recovery.pto_total,
    }


def cubic_law(rtt: float, rng: random.Random, nbytes: int = DOWNLOAD) -> float:
    """Seconds that the same download takes by RFC 9438 alone.

    Packets leave a window per round trip, each is lost by chance, a loss is known a round trip
    later and reduces the window once per round trip (RFC 9002 section 7.3.2). There are no
    timers, no pacing and no ACKs that are lost or late.
    """
    beta, c = 0.7, 0.4
    friendly = 3 * (1 - beta) / (1 + beta)
    window, threshold = 10.0, float("inf")
    w_max = prior = estimate = k = time = epoch = 0.0
    in_epoch = in_recovery = False
    left = nbytes / PAYLOAD
    while left > 0:
        time += rtt
        recovering, in_recovery = in_recovery, False
        for _ in range(int(window)):
            if rng.random() < DOWNLOAD_LOSS:
                if not in_recovery:
                    in_recovery, in_epoch = True, False
                    prior = window
                    w_max = window * (1 + beta) / 2 if window < w_max else window
                    window = threshold = max(2.0, window * beta)
                continue
            left -= 1
            if in_recovery or recovering:
                continue
            if window < threshold:
                window += 1
                continue
            if not in_epoch:
                in_epoch, epoch, estimate = True, time, window
                w_max = max(w_max, window)
                k = ((w_max - window) / c) ** (1 / 3)
            estimate += (friendly if estimate < prior else 1.0) / window
            if w_max + c * (time - epoch - k) ** 3 < estimate:
                window = max(window, estimate)
            else:
                target = w_max + c * (time - epoch + rtt - k) ** 3
                window += (min(max(target, window), 1.5 * window) - window) / window
    return time


def main() -> None:
    head = " | ".join(f"{loss:.0%} loss, {rtt * 1e3:.0f} ms" for loss in LOSSES for rtt in RTTS)
    print(f"| | {head} |\n| --- |" + " --- |" * (len(LOSSES) * len(RTTS)))
    rows = [(name, name, False) for name in CONTROLLERS] + [("aioquic's reno", "reno", True)]
    for label, name, stock in rows:
        cells = []
        for loss in LOSSES:
            for rtt in RTTS:
                outcome = single(name, loss, rtt, stock=stock)
                cells.append(f"{outcome.utilization:.0%} / {outcome.queue:.2f}")
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
    print("\n| first, second | share of the first | share of the second |\n| --- | --- | --- |")
    for first, second in (("cubic", "cubic"), ("reno", "reno"), ("bbr", "bbr"), ("cubic", "bbr")):
        shares = shared(first, second)
        print(f"| {first}, {second} | {shares[0]:.0%} | {shares[1]:.0%} |", flush=True)

    head = " | ".join(f"{rtt * 1e3:.0f} ms" for rtt in DOWNLOAD_RTTS)
    print(f"\n| s per 2 MB, 2% loss | {head} |")
    print("| --- |" + " --- |" * len(DOWNLOAD_RTTS))
    rng = random.Random(1)
    law = [f"{mean(cubic_law(rtt, rng) for _ in range(400)):.1f}" for rtt in DOWNLOAD_RTTS]
    print("| RFC 9438 alone | " + " | ".join(law) + " |")
    for controller in CONTROLLERS:
        cells = []
        for rtt in DOWNLOAD_RTTS:
            times = sorted(download(controller, rtt, seed)[0] for seed in range(24))
            cells.append(f"{mean(times):.1f} [{times[0]:.1f}, {times[-1]:.1f}]")
        print(f"| {controller} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
