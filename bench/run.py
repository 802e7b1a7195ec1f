"""`make bench`: quicedge and other HTTP/3 servers side by side, CPU time per unit of work.

Each round starts every server in turn on one core, the load and the origin on another, and takes
every measure; a figure is the median of the rounds. A wrong or missing answer fails the run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import answers, report
from bench.loader import connection
from bench.proxies import ROOT, Kind, Proxy, Setting, available, pinned, running
from quicedge.config import devcerts

LOAD_CORE = 1
DOWN, DOWN_SLOW = 300_000_000, 30_000_000
UP, UP_SLOW = 200_000_000, 10_000_000
REQUESTS, REQUESTS_SLOW = 4000, 1000
HANDSHAKES = 200
IDLE, IDLE_SLOW = 500, 100


class Wrong(Exception):
    """A server gave a wrong response or none."""


def load(*arguments: object, timeout: float = 120) -> dict[str, float]:
    """Run `bench.loader` on the load's core."""
    command = [sys.executable, "-m", "bench.loader", *map(str, arguments)]
    done = subprocess.run(
        pinned(command, LOAD_CORE), cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    if done.returncode:
        raise Wrong(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout))


def gtlsclient(proxy: Proxy, target: str, *options: str) -> None:
    """One request by Debian's gtlsclient on the load's core."""
    command = ["gtlsclient", "-q", "--exit-on-all-streams-close", *options, "127.0.0.1",
               str(proxy.port), f"https://localhost:{proxy.port}{target}"]  # fmt: skip
    done = subprocess.run(pinned(command, LOAD_CORE), capture_output=True, timeout=120)
    if done.returncode:
        raise Wrong(f"gtlsclient ended with {done.returncode}")


def spent(proxy: Proxy, work: Callable[[], object]) -> float:
    """CPU seconds of the server while `work` runs."""
    before = proxy.cpu_seconds()
    work()
    return proxy.cpu_seconds() - before


def measure(kind: Kind, proxy: Proxy, setting: Setting) -> dict[str, float]:
    """All measures of one server."""
    figures = {"resident_mb": proxy.resident_bytes() / 1e6}
    # First, before other loads leave freed memory that could be reused.
    figures["idle_connection_kb"] = _idle(proxy, IDLE_SLOW if kind.slow else IDLE)

    size = DOWN_SLOW if kind.slow else DOWN
    got = setting.directory / "got"
    shutil.rmtree(got, ignore_errors=True)
    got.mkdir()
    figures["down_cpu_s_per_gb"] = (
        spent(proxy, lambda: gtlsclient(proxy, f"/download?size={size}", f"--download={got}"))
        / size * 1e9
    )  # fmt: skip
    (saved,) = got.iterdir()
    with saved.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != answers.digest(size):
            raise Wrong(f"{kind.label}: the download has the wrong content")
    shutil.rmtree(got)

    size = UP_SLOW if kind.slow else UP
    upload = setting.directory / "upload"
    with upload.open("wb") as file:
        for at in range(0, size, len(answers.BLOCK)):
            file.write(answers.BLOCK[: size - at])
    got.mkdir()
    figures["up_cpu_s_per_gb"] = (
        spent(proxy, lambda: gtlsclient(proxy, "/upload", "-m", "POST", "-d", str(upload),
                                        f"--download={got}"))
        / size * 1e9
    )  # fmt: skip
    (saved,) = got.iterdir()
    if json.loads(saved.read_text()) != {"bytes": size, "sha256": answers.digest(size)}:
        raise Wrong(f"{kind.label}: the upload arrived with the wrong content")
    shutil.rmtree(got)

    count = REQUESTS_SLOW if kind.slow else REQUESTS
    outcome: dict[str, float] = {}
    cpu = spent(proxy, lambda: outcome.update(load("requests", proxy.port, 10, 10, count)))
    figures["request_cpu_us"] = cpu / outcome["done"] * 1e6
    figures["request_p99_ms"] = outcome["p99"] * 1e3

    cpu = spent(proxy, lambda: load("handshakes", proxy.port, HANDSHAKES))
    figures["handshake_cpu_ms"] = cpu / HANDSHAKES * 1e3

    figures["peak_mb"] = proxy.resident_bytes() / 1e6
    return figures


def _idle(proxy: Proxy, count: int) -> float:
    """Kilobytes per idle connection."""
    before = proxy.resident_bytes()
    command = [sys.executable, "-m", "bench.loader", "idle", str(proxy.port), str(count)]
    with subprocess.Popen(
        pinned(command, LOAD_CORE), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        if json.loads(holder.stdout.readline() or "{}").get("done") != count:
            raise Wrong("idle connections failed")
        after = proxy.resident_bytes()
        holder.communicate()
    return (after - before) / count / 1e3


async def _answers(port: int) -> None:
    async with connection(port) as client:  # type: ignore[attr-defined]
        await asyncio.wait_for(client.request(), 2)


def wait_for(proxy: Proxy, setting: Setting) -> None:
    """Wait until a server answers a request correctly; raises Wrong after 20 seconds."""
    deadline = time.monotonic() + 20
    while True:
        try:
            asyncio.run(asyncio.wait_for(_answers(proxy.port), 3))
            return
        except (TimeoutError, ConnectionError, RuntimeError, OSError) as error:
            if time.monotonic() > deadline or proxy.process.poll() is not None:
                log = (setting.directory / f"{proxy.name}.log").read_text()
                raise Wrong(f"{proxy.name} does not answer ({error}):\n{log[-2000:]}") from None
            time.sleep(0.1)


@contextlib.contextmanager
def origin() -> Iterator[int]:
    """The origin, on the load's core."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    process = subprocess.Popen(
        pinned([sys.executable, "-m", "bench.origin", str(port)], LOAD_CORE), cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Wrong("the origin does not start") from None
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="a server by name; may be repeated")
    parser.add_argument("--no-write", action="store_true", help="print, but keep RESULTS.md")
    options = parser.parse_args()
    if shutil.which("gtlsclient") is None:
        sys.exit("bench: gtlsclient is needed (Debian: ngtcp2-client)")
    kinds, missing = available()
    if options.only:
        kinds = [kind for kind in kinds if kind.name in options.only]
    figures: dict[Kind, dict[str, list[float]]] = {k: defaultdict(list) for k in kinds}
    with tempfile.TemporaryDirectory() as name, origin() as origin_port:
        directory = Path(name)
        files = devcerts.ensure(directory / "certs")
        setting = Setting(directory, origin_port, files.cert, files.key, files.ca)
        for number in range(options.rounds):
            for kind in kinds:
                with running(kind, setting) as proxy:
                    try:
                        wait_for(proxy, setting)
                        taken = measure(kind, proxy, setting)
                    except (Wrong, subprocess.TimeoutExpired) as error:
                        sys.exit(f"bench: {kind.label}: {error}")
                for measured, figure in taken.items():
                    figures[kind][measured].append(figure)
                shown = "  ".join(f"{key} {value:.4g}" for key, value in taken.items())
                print(f"round {number + 1}  {kind.label:24} {shown}", flush=True)
    medians = {k: {m: statistics.median(v) for m, v in f.items()} for k, f in figures.items()}
    text = report.markdown(figures, medians, missing, options.rounds)
    print("\n" + text)
    if not options.no_write:
        report.write(ROOT / "bench", text, medians)


if __name__ == "__main__":
    main()
