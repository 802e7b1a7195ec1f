"""One case, once: a server and a client over the link, then the checks."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import socket
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from interop.runner import addresses, network
from interop.runner.cases import Case
from interop.runner.certs import write_certificates
from interop.runner.checks import common
from interop.runner.endpoint import UNSUPPORTED, Endpoint, wait_any
from interop.runner.evidence import CheckFailed, CheckUnsupported, Evidence
from interop.runner.implementations import Implementation
from interop.runner.measure import goodput
from interop.runner.probe import wait_for_server
from interop.runner.topology import Topology, TopologyError
from interop.runner.trace import TraceError

COMPLIANCE_TIMEOUT = 30.0
DIRECTORIES = ("www", "downloads", "certs", "logs", "root")
HTTP09, H3 = "hq-interop", "h3"
_ADJECTIVES = ("brave", "calm", "eager", "fancy", "quiet", "rapid", "sunny", "witty")
_ANIMALS = ("otter", "heron", "lynx", "badger", "raven", "trout", "gecko", "moose")


class Result(Enum):
    """As the interop runner names them; None in its place: the pair was not run."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `kbps` is the goodput of a measurement."""

    result: Result
    reason: str = ""
    kbps: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Pair:
    client: Implementation
    server: Implementation

    def alpn(self, case: Case) -> str | None:
        """The application protocol that this pair uses in a case, None when they share none."""
        if case.client == "http3":
            return H3
        if self.client.http09 and self.server.http09:
            return HTTP09
        return H3 if self.client.h3 and self.server.h3 else None


class Site:
    """Where endpoints run: the namespaces, or loopback when `names` is None."""

    def __init__(self, names: Topology | None) -> None:
        self.names = names

    def start(
        self, implementation: Implementation, role: str, directory: Path, env: dict[str, str]
    ) -> Endpoint:
        """Start one endpoint; `directory` is its own, made here unless it is there."""
        for name in DIRECTORIES:
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "logs" / "qlog").mkdir(exist_ok=True)
        command = implementation.server if role == "server" else implementation.client
        assert command is not None
        namespace = None
        at = str(directory)
        if self.names is not None:
            (directory / "hosts").write_text(addresses.HOSTS)
            namespace = self.names.server if role == "server" else self.names.client
            at = ""
        places = {
            "WWW": f"{at}/www",
            "DOWNLOADS": f"{at}/downloads",
            "CERTS": f"{at}/certs",
            "SSLKEYLOGFILE": f"{at}/logs/keys.log",
            "QLOGDIR": f"{at}/logs/qlog/",
        }
        environment = {**os.environ, **implementation.env, "ROLE": role, **places, **env}
        environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
        return Endpoint(command, environment, directory, namespace)


def compliant(site: Site, implementation: Implementation, role: str, directory: Path) -> str | None:
    """None when the endpoint refuses an unknown case with exit code 127, or what it did."""
    rng = random.SystemRandom()
    slug = f"{rng.choice(_ADJECTIVES)}-{rng.choice(_ANIMALS)}"
    directory.mkdir(parents=True, exist_ok=True)
    write_certificates(directory / "certs")
    env = {"TESTCASE": slug, "REQUESTS": "", "PORT": str(addresses.PORT)}
    endpoint = site.start(implementation, role, directory, env)
    try:
        wait_any([endpoint], COMPLIANCE_TIMEOUT)
        code = endpoint.returncode
    finally:
        endpoint.stop()
    if code == UNSUPPORTED:
        return None
    did = "did not exit" if code is None else f"exited with code {code}"
    return f"not compliant: {did} at the unknown case {slug!r}, {UNSUPPORTED} wanted"


def run_trial(site: Site, case: Case, pair: Pair, directory: Path) -> Outcome:
    """Run `case` once; everything it leaves is under `directory`, made anew."""
    alpn = pair.alpn(case)
    if alpn is None:
        return Outcome(Result.UNSUPPORTED, "no application protocol in common")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    began = time.monotonic()
    outcome = _run(site, case, pair, alpn, directory)
    if outcome.result is Result.SUCCEEDED:
        for path in ("server/www", "client/downloads"):
            shutil.rmtree(directory / path, ignore_errors=True)
    seconds = time.monotonic() - began
    return Outcome(outcome.result, outcome.reason, outcome.kbps, seconds)


def _run(site: Site, case: Case, pair: Pair, alpn: str, directory: Path) -> Outcome:
    port = addresses.PORT if site.names else _free_port()
    host = case.host if site.names else "localhost"
    names = _make_files(directory / "server" / "www", case)
    for role in ("server", "client"):
        certs = directory / role / "certs"
        if role == "server":
            write_certificates(certs, chain_length=case.chain_length, extra=("localhost",))
        else:
            shutil.copytree(directory / "server" / "certs", certs)
    env = {"PORT": str(port), "ALPN": alpn}
    urls = " ".join(f"https://{host}:{port}/{name}" for name in names)
    server_env = {**env, "TESTCASE": case.server, "REQUESTS": ""}
    client_env = {**env, "TESTCASE": case.client, "REQUESTS": urls}
    server = site.start(pair.server, "server", directory / "server", server_env)
    client: Endpoint | None = None
    try:
        reason = _wait_for_server(site, server, case, port)
        if reason is not None:
            return _server_failed(server, reason, directory)
        with _network(site, case, directory):
            client = site.start(pair.client, "client", directory / "client", client_env)
            first = wait_any([client, server], case.timeout)
            codes = client.returncode, server.returncode
            client.stop()
            server.stop()
    except TopologyError as error:
        return Outcome(Result.FAILED, str(error))
    finally:
        if client is not None:
            client.stop()
        server.stop()
    if UNSUPPORTED in codes:
        return Outcome(Result.UNSUPPORTED, "an endpoint exited with code 127")
    if first is None:
        return Outcome(Result.FAILED, f"not done within {case.timeout:g} s")
    if 0 not in codes:
        who, code = ("client", codes[0]) if codes[0] is not None else ("server", codes[1])
        said = _last_line(directory / who / "output.txt")
        return Outcome(Result.FAILED, f"{who} exited with code {code}{said}")
    return _judge(site, case, directory)


def _judge(site: Site, case: Case, directory: Path) -> Outcome:
    evidence = Evidence(directory)
    checks = case.checks if site.names else (common.files,)
    try:
        for check in checks:
            check(evidence)
        kbps = goodput(evidence, sum(case.files)) if case.measured else None
    except CheckUnsupported as missing:
        return Outcome(Result.UNSUPPORTED, str(missing))
    except (CheckFailed, TraceError) as failed:
        return Outcome(Result.FAILED, str(failed))
    return Outcome(Result.SUCCEEDED, kbps=kbps)


@contextlib.contextmanager
def _network(site: Site, case: Case, directory: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if site.names is not None:
            stack.enter_context(network.link(site.names, case.scenario, directory))
            if case.cross_traffic:
                stack.enter_context(network.cross_traffic(site.names))
        yield


def _wait_for_server(site: Site, server: Endpoint, case: Case, port: int) -> str | None:
    if site.names is None:
        timeout = network.SERVER_START_TIMEOUT
        return wait_for_server(
            "127.0.0.1", port, timeout, gone=lambda: server.returncode is not None
        )
    host = addresses.SERVER_V6 if case.host == "server6" else addresses.SERVER_V4
    return network.wait_for_server(site.names, host, server)


def _server_failed(server: Endpoint, reason: str, directory: Path) -> Outcome:
    if server.returncode == UNSUPPORTED:
        return Outcome(Result.UNSUPPORTED, "the server exited with code 127")
    if server.returncode is not None:
        said = _last_line(directory / "server" / "output.txt")
        return Outcome(Result.FAILED, f"server exited with code {server.returncode} at start{said}")
    return Outcome(Result.FAILED, reason)


def _make_files(www: Path, case: Case) -> list[str]:
    www.mkdir(parents=True)
    letters = string.ascii_lowercase
    names = []
    for size in case.files:
        name = "".join(secrets.choice(letters) for _ in range(case.name_length))
        (www / name).write_bytes(os.urandom(size))
        names.append(name)
    return names


def _free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))
        port: int = sock.getsockname()[1]
        return port


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return f": {lines[-1][:160]}" if lines else ""
