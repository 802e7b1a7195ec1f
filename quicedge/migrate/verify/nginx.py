"""The original: nginx with its own configuration, on addresses of its own.

What the configuration does to requests stays as it is. Where it listens, what it forwards to,
its certificates and password files, and all that it would write are replaced.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.world import walk
from quicedge.migrate.verify.addresses import (
    Listeners,
    Ports,
    canonical_address,
    split_url,
)
from quicedge.migrate.verify.material import Material
from quicedge.migrate.verify.origins import Origins
from quicedge.migrate.verify.process import EdgeError, EdgeProcess

_DROPPED = frozenset(
    (
        "include", "user", "daemon", "master_process", "pid", "lock_file", "worker_processes",
        "worker_priority", "worker_cpu_affinity", "worker_rlimit_nofile", "worker_rlimit_core",
        "worker_shutdown_timeout", "working_directory", "debug_points", "ssl_engine", "stream",
        "mail", "google_perftools_profiles", "error_log", "access_log", "log_format",
        "open_log_file_cache", "client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path",
        "uwsgi_temp_path", "scgi_temp_path", "resolver", "resolver_timeout", "dav_methods",
        "dav_access", "create_full_put_path", "proxy_store", "fastcgi_store", "uwsgi_store",
        "scgi_store", "ssl_password_file", "ssl_stapling", "ssl_stapling_verify",
        "ssl_stapling_file", "ssl_stapling_responder", "ssl_dhparam", "ssl_trusted_certificate",
        "ssl_session_ticket_key", "ssl_crl", "proxy_ssl_verify", "proxy_ssl_trusted_certificate",
        "proxy_ssl_certificate", "proxy_ssl_certificate_key", "proxy_ssl_crl",
        "proxy_ssl_password_file", "grpc_ssl_verify", "grpc_ssl_trusted_certificate",
        "grpc_ssl_certificate", "grpc_ssl_certificate_key", "grpc_ssl_crl",
    )
)  # fmt: skip
"""Directives that need privileges, write to the machine, or name secrets; none of them decides what
a request becomes. WebDAV and stores are among them: playing requests must not change files."""

_PASSES = frozenset(
    ("proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass")
)
_HTTP_PASSES = frozenset(("proxy_pass", "grpc_pass"))
_LISTEN_OPTIONS = frozenset(("ssl", "http2", "default_server", "default"))
"""Options of `listen` that decide what a request becomes."""

_FILES: Mapping[str, Callable[[Material], str]] = {
    "auth_basic_user_file": lambda material: material.htpasswd,
    "ssl_certificate": lambda material: material.cert,
    "ssl_certificate_key": lambda material: material.key,
    "ssl_client_certificate": lambda material: material.ca,
}
"""Directives that name a file, and the throw-away one in its place."""

_UPSTREAM_ADDRESS = re.compile(
    r"(?:https?://)?[\w.-]+(?::\d+)?|(?:https?://)?\[[0-9a-f:]+\](?::\d+)?"
)


def find_nginx() -> str:
    """The path of nginx; raises EdgeError."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise EdgeError(
            "nginx is not in PATH; --verify runs it beside quicedge (Debian: apt install nginx)"
        )
    return found


@dataclass(frozen=True)
class Prefixes:
    """What relative file names of a configuration are relative to."""

    root: Path
    """`root`, `alias` and the like: the prefix that nginx was built with."""
    conf: Path
    """Certificates, password files: the directory of the configuration."""


class NginxConfiguration:
    """The configuration rewritten for a verification."""

    def __init__(
        self, source: Iterable[Directive], directory: Path, prefixes: Prefixes,
        origins: Origins, material: Material, ports: Ports, *, has_realip: bool = True,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._prefixes = prefixes
        self._origins = origins
        self._material = material
        before = "realip_" if has_realip else ""
        self._client = f"${before}remote_addr ${before}remote_port"
        self._closed_port = ports.take()
        self.listeners = Listeners(ports)
        self.contexts: list[tuple[Directive, ...]] = []
        """Servers and locations with the blocks around them, by their number in the log."""
        source = list(source)
        if any(one.name == "server" for one in source):
            # A part of `http { }`, as those in sites-available are.
            source = [_made("events", block=[]), _made("http", block=source)]
        every = list(walk(source))
        self._upstreams = {one.args[0] for one in every if one.name == "upstream" and one.args}
        passed = [one.args[0] for one in every if one.name in _PASSES and one.args]
        self._passed = set(self._literal(passed))
        """Addresses that requests are passed on to."""
        self._addressing = {name for text in passed for name in re.findall(r"\$\{?(\w+)", text)}
        """Variables that proxy_pass has addresses from."""
        self._rewriters: dict[str, Callable[[Directive], Iterator[Directive]]] = {
            "listen": self._listen,
            "root": self._site,
            "alias": self._site,
            "proxy_cache_path": self._cache,
            "fastcgi_cache_path": self._cache,
            "uwsgi_cache_path": self._cache,
            "scgi_cache_path": self._cache,
            "load_module": self._module,
            "set": self._variable,
            "proxy_redirect": self._redirect,
        }
        self.directives = self._main(source)
        if not any(one.name == "events" for one in self.directives):
            self.directives.append(_made("events", block=[]))

    def write(self) -> Path:
        """Write the rewritten configuration; returns its path."""
        import crossplane

        path = self._directory / "nginx.conf"
        path.write_text(crossplane.build(_payload(self.directives)) + "\n")
        return path

    def process(self, nginx: str) -> EdgeProcess:
        """Write it, and make the process that runs it."""
        command = [nginx, "-p", str(self._directory), "-c", str(self.write())]
        return EdgeProcess("nginx", command, self._directory, self.listeners.accept)

    def address_of(self, server: Directive) -> str:
        """The address of a server of an upstream."""
        return canonical_address(server.args[0], 80)

    def handled(self) -> dict[tuple[str, int], tuple[Directive, ...]]:
        """The location, or else the server, that handled each request, with the blocks around it,
        by the client's address and port."""
        found = {}
        for line in self.log.read_text().splitlines() if self.log.exists() else ():
            host, port, number = line.split()
            found[host, int(port)] = self.contexts[int(number)]
        return found

    @property
    def log(self) -> Path:
        """A line per request: the client's address and port, and the number of its context."""
        return self._directory / "access.log"

    # --- blocks -----------------------------------------------------------------------------

    def _main(self, source: list[Directive]) -> list[Directive]:
        main = [
            *_as_this_user(),
            _made("daemon", "off"),
            _made("worker_processes", "1"),
            _made("pid", str(self._directory / "nginx.pid")),
            _made("lock_file", str(self._directory / "nginx.lock")),
            _made("error_log", str(self._directory / "error.log"), "notice"),
        ]
        for directive in source:
            if directive.name == "http":
                main.append(replace(directive, block=self._http(directive)))
            else:
                main += self._rewritten(directive, ())
        return main

    def _http(self, http: Directive) -> list[Directive]:
        rewritten = self._block(http, (http,))
        head = [
            _made(f"{kind}_temp_path", str(self._directory / f"temp-{kind}"))
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ]
        head += [
            _made("log_format", f"context_{number}", f"{self._client} {number}")
            for number in range(len(self.contexts))
        ]
        return [*head, _made("access_log", "off"), *rewritten]

    def _block(self, parent: Directive, chain: tuple[Directive, ...]) -> list[Directive]:
        """The directives of a block, rewritten; `chain` ends with the block."""
        found: list[Directive] = []
        for child in parent.body:
            found += self._rewritten(child, chain)
        if parent.name == "server" and parent.block is not None:
            if not any(one.name == "listen" for one in parent.body):
                found = [*self._listen(_made("listen", "80")), *found]
            found = _without_repeats(found)
        if parent.name in ("server", "location"):
            number = len(self.contexts)
            self.contexts.append(chain)
            found.append(_made("access_log", str(self.log), f"context_{number}"))
        return found

    def _rewritten(self, directive: Directive, chain: tuple[Directive, ...]) -> Iterable[Directive]:
        """What takes the place of a directive."""
        name = directive.name
        if name in _DROPPED:
            return ()
        if directive.block is not None:
            if name in ("map", "split_clients"):
                return (self._choices(directive),)
            block = self._block(directive, (*chain, directive))
            return (replace(directive, block=block),)
        if name in _PASSES:
            return (self._pass(directive),)
        if name == "server" and chain and chain[-1].name == "upstream":
            return (self._server_of_upstream(directive),)
        if name in _FILES:
            return (replace(directive, args=[_FILES[name](self._material)]),)
        rewrite = self._rewriters.get(name)
        return (directive,) if rewrite is None else rewrite(directive)

    # --- addresses --------------------------------------------------------------------------

    def _listen(self, directive: Directive) -> Iterator[Directive]:
        address, *options = directive.args
        listener = self.listeners.at(address, tls="ssl" in options, h2="http2" in options)
        if listener is not None:
            kept = [option for option in options if option in _LISTEN_OPTIONS]
            yield replace(directive, args=[f"127.0.0.1:{listener.local_port}", *kept])

    def _local(self, address: str, default_port: int) -> str:
        port = self._origins.port_of(canonical_address(address, default_port))
        return f"127.0.0.1:{port}"

    def _server_of_upstream(self, directive: Directive) -> Directive:
        address, *parameters = directive.args
        kept = [one for one in parameters if not one.startswith(("resolve", "service=", "route="))]
        return replace(directive, args=[self._local(address, 80), *kept])

    def _pass(self, directive: Directive) -> Directive:
        if not directive.args:
            return directive
        if directive.name not in _HTTP_PASSES:
            # Nobody here speaks it; a refused connection is answered at once.
            return replace(directive, args=[f"127.0.0.1:{self._closed_port}"])
        return replace(directive, args=[self._address(directive.args[0]), *directive.args[1:]])

    def _address(self, text: str) -> str:
        """An argument of proxy_pass with the address of a stand-in."""
        scheme, authority, rest = split_url(text)
        if not authority or "$" in authority or authority in self._upstreams:
            return text
        default = 443 if scheme in ("https", "grpcs") else 80
        local = self._local(authority, default)
        return f"{scheme}://{local}{rest}" if scheme else f"{local}{rest}"

    def _literal(self, urls: Iterable[str]) -> Iterator[str]:
        for url in urls:
            scheme, authority, _ = split_url(url)
            if authority and "$" not in authority and authority not in self._upstreams:
                yield canonical_address(authority, 443 if scheme in ("https", "grpcs") else 80)

    def _redirect(self, directive: Directive) -> Iterator[Directive]:
        """`proxy_redirect` with a stand-in where it is for the address of an origin."""
        scheme, authority, _ = split_url(directive.args[0])
        if (
            scheme
            and canonical_address(authority, 443 if scheme == "https" else 80) in self._passed
        ):
            old, *rest = directive.args
            directive = replace(directive, args=[self._address(old), *rest])
        yield directive

    def _choices(self, directive: Directive) -> Directive:
        """`map` and `split_clients`, with stand-ins where the values are addresses."""
        if directive.args[-1].lstrip("$") not in self._addressing:
            return directive
        block = [
            replace(one, args=[self._value(text) for text in one.args]) for one in directive.body
        ]
        return replace(directive, block=block)

    def _variable(self, directive: Directive) -> Iterator[Directive]:
        if len(directive.args) == 2 and directive.args[0].lstrip("$") in self._addressing:
            name, value = directive.args
            directive = replace(directive, args=[name, self._value(value)])
        yield directive

    def _value(self, text: str) -> str:
        """A value that may be an address."""
        scheme, authority, _ = split_url(text)
        if (scheme or ":" in authority) and _UPSTREAM_ADDRESS.fullmatch(authority):
            return self._address(text)
        return text

    # --- files ------------------------------------------------------------------------------

    def _site(self, directive: Directive) -> Iterator[Directive]:
        path = directive.args[0]
        if "$" not in path:
            kept = self._material.site(str(self._prefixes.root / path))
            if path.endswith("/"):
                kept = kept.rstrip("/") + "/"
            directive = replace(directive, args=[kept])
        yield directive

    def _cache(self, directive: Directive) -> Iterator[Directive]:
        place = self._directory / f"cache-{directive.line}"
        yield replace(directive, args=[str(place), *directive.args[1:]])

    def _module(self, directive: Directive) -> Iterator[Directive]:
        yield replace(directive, args=[str(self._prefixes.root / directive.args[0])])


def _made(name: str, *args: str, block: list[Directive] | None = None) -> Directive:
    return Directive(name, list(args), "", 0, block)


def _as_this_user() -> list[Directive]:
    """The superuser's nginx would have other users' workers, who may not read our directory."""
    if os.geteuid() != 0:
        return []
    return [_made("user", pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name)]


def _payload(directives: Iterable[Directive]) -> list[dict[str, Any]]:
    """The form that crossplane writes."""
    payload = []
    for directive in directives:
        item: dict[str, Any] = {
            "directive": directive.name, "line": directive.line, "args": directive.args
        }  # fmt: skip
        if directive.block is not None:
            item["block"] = _payload(directive.block)
        payload.append(item)
    return payload


def _without_repeats(directives: list[Directive]) -> list[Directive]:
    """IPv4 and IPv6 of one port are one address here, which a server may name only once."""
    known: set[str] = set()
    kept = []
    for directive in directives:
        if directive.name == "listen":
            if directive.args[0] in known:
                continue
            known.add(directive.args[0])
        kept.append(directive)
    return kept


def prefixes_of(nginx: str, source: Path) -> tuple[Prefixes, bool]:
    """What file names are relative to, and whether the module realip is there."""
    said = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=True).stderr
    prefix = re.search(r"--prefix=(\S+)", said)
    root = Path(prefix[1]) if prefix else Path("/usr/local/nginx")
    return Prefixes(root, source.resolve().parent), "http_realip_module" in said
