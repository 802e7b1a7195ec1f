"""Loads from the machine's other core: Go and command-line clients that check every response.

`goload` (bench/goload: quic-go and Go's net/http) is built on first use; curl, gtlsclient and
h2load come from the system. The CPU that a load costs is not part of any figure.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import answers
from bench.proxies import ROOT, Proxy, pinned

LOAD_CORE = 1
TIMEOUT = 120
"""Seconds for one load."""


class WrongAnswer(Exception):
    """A server gave a wrong response or none."""


@functools.cache
def built(name: str) -> str:
    """Path of a Go program of `bench/`, built on first use."""
    program = ROOT / "build" / name
    program.parent.mkdir(exist_ok=True)
    subprocess.run(["go", "build", "-o", program, "."], cwd=ROOT / "bench" / name, check=True)
    return str(program)


def missing() -> list[str]:
    """Why loads cannot run here; empty if all can."""
    reasons = [
        f"{program}: not in PATH (Debian: {package})"
        for program, package in (
            ("gtlsclient", "ngtcp2-client"),
            ("h2load", "nghttp2-client"),
            ("curl", "curl"),
            ("go", "golang"),
        )
        if shutil.which(program) is None
    ]
    return reasons


def run(command: list[str]) -> str:
    """Run a client on the load's core and return its output; raises WrongAnswer if it fails."""
    done = subprocess.run(
        pinned(command, LOAD_CORE), cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise WrongAnswer(f"{command[0]} ended with {done.returncode}: {said[-1] if said else ''}")
    return done.stdout


def _goload(proxy: Proxy, mode: str, protocol: str, options: dict[str, float]) -> list[str]:
    return [
        built("goload"),
        f"-address=127.0.0.1:{proxy.port}",
        f"-mode={mode}",
        f"-protocol={protocol}",
        *(f"-{name}={value}" for name, value in options.items()),
    ]


def go(proxy: Proxy, mode: str, protocol: str = "h3", **options: float) -> dict[str, float]:
    """Run `goload` in a mode; returns its figures."""
    return dict(json.loads(run(_goload(proxy, mode, protocol, options))))


def measured(
    proxy: Proxy, mode: str, protocol: str = "h3", **options: float
) -> tuple[float, dict[str, float]]:
    """CPU seconds of the server for a load, and the load's figures; without the handshakes."""
    command = pinned([*_goload(proxy, mode, protocol, options), "-hold"], LOAD_CORE)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        if not client.stdout.readline():
            raise WrongAnswer(client.communicate()[1].strip())
        before = proxy.cpu_seconds()
        output, errors = client.communicate("go\n", timeout=TIMEOUT)
        after = proxy.cpu_seconds()
    if client.returncode:
        raise WrongAnswer(errors.strip())
    return after - before, dict(json.loads(output))


@contextmanager
def idle(proxy: Proxy, total: int, protocol: str) -> Iterator[None]:
    """Hold idle connections, each of which has made one request."""
    command = pinned(_goload(proxy, "idle", protocol, {"total": total}), LOAD_CORE)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        if json.loads(holder.stdout.readline() or "{}").get("done") != total:
            raise WrongAnswer("idle connections failed")
        yield
        holder.communicate()


_H2LOAD_DONE = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored")
_H2LOAD_RATE = re.compile(r"finished in .*?, ([\d.]+) req/s")


def h2load(
    proxy: Proxy, protocol: str, total: int, connections: int, streams: int
) -> dict[str, float]:
    """Small requests over HTTP/2 or HTTP/1.1 on TCP."""
    output = run([
        "h2load", "-n", str(total), "-c", str(connections), "-m", str(streams),
        *(["--h1"] if protocol == "http/1.1" else []),
        f"https://localhost:{proxy.port}/download?size=100",
    ])  # fmt: skip
    done, rate = _H2LOAD_DONE.search(output), _H2LOAD_RATE.search(output)
    # Statuses are counted apart: "succeeded" includes errors of the server.
    if done is None or rate is None or f"status codes: {total} 2xx" not in output:
        raise WrongAnswer(f"h2load: {output.strip()[-400:]}")
    return {"done": float(done[1]), "per_second": float(rate[1])}


_TRANSFER_CLIENT = {
    "h3": ["gtlsclient", "-q", "--exit-on-all-streams-close"],
    "h2": ["curl", "-sSk", "--fail", "--http2"],
    "http/1.1": ["curl", "-sSk", "--fail", "--http1.1"],
}


@contextmanager
def _transfer(proxy: Proxy, protocol: str, target: str, upload: Path | None) -> Iterator[Path]:
    """One request; the block gets the file with the response body."""
    with tempfile.TemporaryDirectory() as name:
        got = Path(name)
        url = f"https://localhost:{proxy.port}{target}"
        client = _TRANSFER_CLIENT[protocol]
        if protocol == "h3":
            send = ["-m", "POST", "-d", str(upload)] if upload else []
            run([*client, *send, f"--download={got}", "127.0.0.1", str(proxy.port), url])
        else:
            # curl announces the size of a file but streams it.
            send = ["-X", "POST", "-T", str(upload)] if upload else []
            resolve = f"localhost:{proxy.port}:127.0.0.1"
            run([*client, *send, "--resolve", resolve, "-o", str(got / "body"), url])
        (saved,) = got.iterdir()
        yield saved


def download(proxy: Proxy, protocol: str, size: int) -> None:
    """Download `size` bytes and verify them by hash."""
    with (
        _transfer(proxy, protocol, f"/download?size={size}", None) as saved,
        saved.open("rb") as file,
    ):
        if hashlib.file_digest(file, "sha256").hexdigest() != answers.digest(size):
            raise WrongAnswer("the download has the wrong content")


def upload(proxy: Proxy, protocol: str, size: int) -> None:
    """Upload `size` bytes; the origin returns their number and hash."""
    with tempfile.NamedTemporaryFile() as file:
        for at in range(0, size, len(answers.BLOCK)):
            file.write(answers.BLOCK[: size - at])
        file.flush()
        with _transfer(proxy, protocol, "/upload", Path(file.name)) as saved:
            if json.loads(saved.read_text()) != {"bytes": size, "sha256": answers.digest(size)}:
                raise WrongAnswer("the upload arrived with the wrong content")
