"""Clients on other TLS stacks, and which of them are here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from interop.runner import implementations
from interop.runner.implementations import PEERS, NotHere

BUILD_TIMEOUT = 1800.0


@dataclass(frozen=True)
class Stack:
    """A client: its environment is that of the interop runner, with `PORT` and `CERTS`."""

    name: str
    library: str
    """What does TLS for it."""
    command: tuple[str, ...]
    version: str
    transport: str = "QUIC"
    env: Mapping[str, str] = field(default_factory=dict)


def _peer(name: str, library: str) -> Stack:
    peer = implementations.find(name)
    assert peer.client is not None
    return Stack(name, library, peer.client, peer.version, env=peer.env)


def _script(name: str, library: str, script: str, version: str, transport: str = "QUIC") -> Stack:
    return Stack(name, library, (sys.executable, str(PEERS / script)), version, transport)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotHere(f"{name} is not installed")
    return found


def _said(*command: str) -> str:
    """The version in what a program says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found is not None else ""


def _cache(name: str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = base / "quicedge-interop" / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _run(*command: str, cwd: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True,
        timeout=BUILD_TIMEOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotHere(f"{command[0]} failed: {' '.join(done.stderr.splitlines()[-1:])}")


def _go() -> Stack:
    program = _cache("tls-go") / "goclient"
    source = PEERS / "go_client"
    _run(_program("go"), "build", "-o", str(program), ".", cwd=source, env={})
    (version,) = re.findall(r"quic-go (v[\d.]+)", (source / "go.mod").read_text())
    return Stack("quic-go", f"Go {_said('go', 'version')}", (str(program),), version)


def _rust(crate: str, library: str, name: str, program: str) -> Callable[[], Stack]:
    def find() -> Stack:
        source, target = PEERS / "rust_clients", _cache("tls-rust")
        _run(
            _program("cargo"), "build", "--release", "--locked", "--quiet", cwd=source,
            env={"CARGO_TARGET_DIR": str(target)},
        )  # fmt: skip
        versions = dict(
            re.findall(r'name = "(.+)"\nversion = "(.+)"', (source / "Cargo.lock").read_text())
        )
        path = str(target / "release" / program)
        return Stack(name, f"{library} {versions[library]}", (path,), versions[crate])

    return find


def _curl_cffi() -> Stack:
    try:
        version = importlib.metadata.version("curl_cffi")
    except importlib.metadata.PackageNotFoundError:
        raise NotHere("curl_cffi is not installed (pip install curl_cffi)") from None
    return _script("curl_cffi as Chrome", "BoringSSL", "curl_tls_client.py", version)


def _chromium() -> Stack:
    version = _said(_program("chromium"), "--version")
    return _script("Chromium", "BoringSSL", "chromium_client.py", version)


def _openssl() -> Stack:
    from OpenSSL import SSL

    library = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().rsplit(" ", 3)[0]
    version = importlib.metadata.version("pyOpenSSL")
    return _script("pyOpenSSL", library, "openssl_client.py", version, "TCP")


def _curl() -> Stack:
    curl = _program("curl")
    words = subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout
    library = next((word for word in words.split() if word.startswith("OpenSSL/")), "")
    only_handshake = '[ "$TESTCASE" = handshake ] || exit 127; '
    options = '--silent --fail --cacert "$CERTS/ca.pem" --output /dev/null'
    command = ("sh", "-c", f"{only_handshake}exec {curl} {options} ${{REQUESTS%% *}}")
    return Stack("curl", library.replace("/", " "), command, _said(curl, "--version"), "TCP")


def _java() -> Stack:
    command = (_program("java"), str(PEERS / "JavaClient.java"))
    return Stack("Java", "JSSE", command, _said("java", "--version"), "TCP")


STACKS: Mapping[str, Callable[[], Stack]] = {
    "chromium": _chromium,
    "curl_cffi": _curl_cffi,
    "quic-go": _go,
    "quinn": _rust("quinn", "rustls", "quinn", "quinn"),
    "s2n-quic": _rust("s2n-quic", "s2n-tls", "s2n-quic", "s2n"),
    "gtls": lambda: _peer("gtls", "GnuTLS"),
    "qh3": lambda: _peer("qh3", "qh3 (AWS-LC)"),
    "aioquic": lambda: _peer("aioquic", "aioquic"),
    "openssl": _openssl,
    "curl": _curl,
    "java": _java,
}
