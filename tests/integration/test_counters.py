"""Counters of `/metrics` never go down while the edge is up, whichever of its processes ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_generations import banks, change, reload
from tests.integration.test_upgrades import quicedge, upgradable
from tests.support.download_client import download_client
from tests.support.edge import RunningEdge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

OF_THE_SUPERVISOR = ("quicedge_reloads", "quicedge_worker_restarts", "quicedge_alt_svc")


def counters(running: RunningEdge) -> Series:
    """What workers count."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(running.metrics())
        if family.type != "gauge" and not family.name.startswith(OF_THE_SUPERVISOR)
        for sample in family.samples
    }


class Scraper:
    """Scrapes all the time; keeps what went down, or away."""

    def __init__(self, running: RunningEdge) -> None:
        self._running = running
        self._known: Series = {}
        self.scrapes = 0
        self.wrong: list[str] = []
        self.ended = threading.Event()

    def scrape(self) -> Series:
        found = counters(self._running)
        self.scrapes += 1
        for key, value in self._known.items():
            now = found.get(key)
            if now is None or now < value:
                self.wrong.append(f"scrape {self.scrapes}: {key}: {value} -> {now}")
        self._known = found
        return found

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self.scrape()
            except OSError:
                pass  # between two supervisors
            self.ended.wait(0.02)


@contextmanager
def scraping(running: RunningEdge) -> Iterator[Scraper]:
    scraper = Scraper(running)
    thread = threading.Thread(target=scraper.run)
    thread.start()
    try:
        yield scraper
    finally:
        scraper.ended.set()
        thread.join()


def requests(found: Series, name: str) -> float:
    return sum(value for (of, _), value in found.items() if of == name)


def one_generation(running: RunningEdge) -> None:
    wait_until(lambda: len(banks(running)) == 1, "the end of the workers before", 60)


def test_no_counter_goes_down_or_away_whichever_process_ends(tmp_path: Path) -> None:
    asked = 0

    async def ask(running: RunningEdge, connections: int = 6) -> None:
        nonlocal asked
        for _ in range(connections):
            async with download_client(running.port) as client:
                await asyncio.gather(client.request(), client.request())
            asked += 2

    with (
        demo_origin() as origin,
        upgradable(tmp_path, origin, 'workers = 2\nupgrade_drain = "1s"') as running,
    ):
        asyncio.run(ask(running))
        with scraping(running) as scraper:
            assert quicedge(running, "upgrade").returncode == 0
            asyncio.run(ask(running))
            one_generation(running)
            change(running, "workers = 2", "workers = 3")
            assert reload(running).returncode == 0
            asyncio.run(ask(running))
            one_generation(running)
            os.kill(running.admin("/api/v1/status")["pid"], signal.SIGKILL)
            wait_until(lambda: not running.is_listening(), "the end of the supervisor", 20)
            running.start()
            asyncio.run(ask(running))
        assert not scraper.wrong, "\n".join(scraper.wrong[:20])
        assert scraper.scrapes > 20
        found = scraper.scrape()
        assert requests(found, "quicedge_requests_total") == asked
        assert requests(found, "quicedge_route_requests_total") == asked
        assert running.admin("/api/v1/upstreams")["app"]["requests"] == asked

        # A worker that is killed has counted what the last scrape saw.
        doomed = running.admin("/api/v1/status")["workers"][0]["pid"]
        os.kill(doomed, signal.SIGKILL)

        def replaced() -> bool:
            workers = running.admin("/api/v1/status")["workers"]
            scraper.scrape()
            return doomed not in [w["pid"] for w in workers] and all(w["stats"] for w in workers)

        wait_until(replaced, "another worker", 30)
        assert not scraper.wrong, "\n".join(scraper.wrong[:20])
        assert requests(scraper.scrape(), "quicedge_requests_total") == asked
