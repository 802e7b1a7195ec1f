"""Caddy as the original of a verification: its own JSON, on addresses of its own."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quicedge.migrate.caddy.adapt import adapt, find_caddy
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.report import Translation
from quicedge.migrate.verify.addresses import Listener, Listeners, Ports, canonical_address
from quicedge.migrate.verify.announcements import Announcements
from quicedge.migrate.verify.client import upgrade_headers
from quicedge.migrate.verify.material import PASSWORD, USER, Material
from quicedge.migrate.verify.message import Outcome, Sample
from quicedge.migrate.verify.origins import ASK, Origins
from quicedge.migrate.verify.process import EdgeProcess
from quicedge.migrate.verify.sample_list import (
    UNKNOWN_HOST,
    Made,
    samples_of_path,
    samples_of_size,
)

JSON = dict[str, Any]


class CaddyOriginal:
    """Raises SourceError if there is no Caddy, or it cannot read the file."""

    def __init__(
        self, path: Path, directory: Path, origins: Origins, material: Material, ports: Ports
    ) -> None:
        self._caddy = find_caddy()
        self._directory = directory
        self._base = path.resolve().parent
        self._origins = origins
        self._material = material
        self._listeners = Listeners(ports)
        self.port_for = self._listeners.port_for
        self._adapted: JSON = adapt(path)
        self._servers: list[tuple[Listener, JSON]] = []
        self._json = self._rewritten()

    # --- the configuration ------------------------------------------------------------------

    def _rewritten(self) -> JSON:
        servers: JSON = {}
        found: JSON = self._adapted.get("apps", {}).get("http", {}).get("servers", {})
        for name, server in found.items():
            host, _, port = str((server.get("listen") or [":443"])[0]).rpartition(":")
            tls = _has_tls(server, port)
            listener = self._listeners.at(f"{host or '*'}:{port}", tls=tls, h2=tls)
            if listener is None:
                continue
            self._servers.append((listener, server))
            kept = copy.deepcopy(server)
            for handler in _handlers(kept):
                self._stand_in(handler)
            servers[name] = {
                "listen": [f"127.0.0.1:{listener.local_port}"],
                "routes": kept.get("routes", []),
                "protocols": ["h1", "h2"],
                "automatic_https": {"disable": True},
                **({"errors": kept["errors"]} if "errors" in kept else {}),
                **(
                    {"trusted_proxies": kept["trusted_proxies"]}
                    if "trusted_proxies" in kept
                    else {}
                ),
                # Its only certificate is for localhost, and served for every name.
                **({"tls_connection_policies": [{"fallback_sni": "localhost"}]} if tls else {}),
            }
        pair = {"certificate": self._material.cert, "key": self._material.key}
        return {
            "admin": {"disabled": True, "config": {"persist": False}},
            "storage": {"module": "file_system", "root": str(self._directory / "storage")},
            "logging": {"logs": {"default": {"level": "ERROR"}}},
            "apps": {
                "http": {"servers": servers},
                "tls": {"certificates": {"load_files": [pair]}},
            },
        }

    def _stand_in(self, handler: JSON) -> None:
        kind = handler.get("handler")
        if kind == "reverse_proxy":
            transport = handler.get("transport") or {}
            if transport.get("protocol", "http") != "http":
                handler["transport"] = {"protocol": "http"}
            tls = transport.get("tls")
            if tls is not None:
                tls.clear()
                tls["insecure_skip_verify"] = True
            handler.pop("health_checks", None)
            handler.pop("dynamic_upstreams", None)
            for one in handler.get("upstreams", ()):
                address = _address(one["dial"], 443 if tls is not None else 80)
                one["dial"] = f"127.0.0.1:{self._origins.port_of(address)}"
        elif kind in ("file_server", "vars") and "{" not in handler.get("root", "{"):
            handler["root"] = self._material.site(str(self._base / handler["root"]))
        elif kind == "authentication":
            basic = handler.get("providers", {}).get("http_basic")
            if basic is not None:
                basic["accounts"] = [{"username": USER, "password": self._material.password_hash}]

    # --- the original -----------------------------------------------------------------------

    @property
    def names(self) -> Mapping[int, str]:
        return self._listeners.names

    settles = False

    def process(self) -> EdgeProcess:
        path = self._directory / "caddy.json"
        path.write_text(json.dumps(self._json))
        command = [self._caddy, "run", "--config", str(path)]
        return EdgeProcess("caddy", command, self._directory, self._listeners.accept)

    def tls_port_for(self, sample: Sample) -> int | None:
        return None

    def upstream_names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for _, server in self._servers:
            for handler in _handlers(server):
                servers = handler.get("upstreams") or []
                if handler.get("handler") == "reverse_proxy" and servers:
                    tls = (handler.get("transport") or {}).get("tls")
                    for one in servers:
                        address = _address(one["dial"], 80 if tls is None else 443)
                        names.setdefault(address, servers[0]["dial"])
        return names

    def announcements(self, translation: Translation) -> Announcements:
        return Announcements(translation.report, translation.notes)

    def ended(self) -> None:
        pass

    def handled_by(self, sample: Sample, outcome: Outcome) -> Iterable[Directive]:
        return ()  # Caddy does not tell which of its routes a request has taken.

    # --- requests ---------------------------------------------------------------------------

    def samples(self) -> Made:
        return Made.of(self._samples())

    def _samples(self) -> Iterator[Sample]:
        for listener, server in self._servers:
            yield Sample("GET", f"{listener.url(UNKNOWN_HOST)}/sample?a=1")
            for route in server.get("routes", ()):
                hosts = [host for one in route.get("match", ()) for host in one.get("host", ())]
                for host in hosts or ["default.invalid"]:
                    base = listener.url(host.replace("*", "sample", 1))
                    if host == (hosts or [host])[0]:
                        yield from self._of_site(base, route, h2=listener.tls)
                    else:
                        yield Sample("GET", f"{base}/sample?a=1")

    def _of_site(self, base: str, site: JSON, *, h2: bool) -> Iterator[Sample]:
        """Requests for each path that the matchers of a site name, and for what else they ask."""
        yield from samples_of_path(base, "/", full=True, h2=h2)
        yield Sample("GET", f"{base}/sample.html")
        yield Sample("GET", f"{base}/missing/page")
        paths = dict.fromkeys(_paths(site, ""))
        for path in paths:
            yield from samples_of_path(base, path, full=True, h2=h2)
            yield Sample("GET", f"{base}{path.rstrip('/')}/a%20b/%C3%A9")
            yield Sample("GET", f"{base}{path.rstrip('/')}")
        urls = [base + path for path in ("/", *paths)]
        for url in urls:
            yield Sample("GET", url, upgrade_headers())
        for handler in _handlers(site):
            kind = handler.get("handler")
            if kind == "authentication":
                for user in (f"{USER}:{PASSWORD}", f"{USER}:wrong"):
                    token = base64.b64encode(user.encode()).decode()
                    for url in urls:
                        yield Sample("GET", url, [("authorization", f"Basic {token}")])
            elif kind == "reverse_proxy" and handler.get("handle_response"):
                for url in urls:
                    yield Sample("GET", url, [(ASK, "401")])
            elif kind == "request_body":
                for url in urls:
                    yield from samples_of_size(url, int(handler.get("max_size", 0)))
        yield from _meeting(base, site)


def _has_tls(server: JSON, port: str) -> bool:
    """Whether Caddy serves https: for hosts, on other ports than that of plain HTTP."""
    if port == "80" or server.get("automatic_https", {}).get("disable"):
        return False
    if "tls_connection_policies" in server:
        return True
    return any(
        "host" in one for route in server.get("routes", ()) for one in route.get("match", ())
    )


def _address(dial: str, default_port: int) -> str:
    if dial.startswith("unix/"):
        return f"unix:{dial.removeprefix('unix/')}"
    return canonical_address(dial, default_port)


def _routes(node: Any) -> Iterator[JSON]:
    """All routes in a piece of JSON, those in handlers too."""
    if isinstance(node, dict):
        if "handle" in node:
            yield node
        for value in node.values():
            yield from _routes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _routes(value)


def _handlers(node: Any) -> Iterator[JSON]:
    for route in _routes(node):
        yield from route["handle"]


def _paths(route: JSON, prefix: str) -> Iterator[str]:
    """A path for each path matcher in a route; below a stripped prefix, with it and without."""
    for matcher in route.get("match", ()):
        for one in (matcher, *matcher.get("not", ())):
            for text in one.get("path", ()):
                path = text.replace("*", "sample" if text.startswith("*") else "")
                yield prefix + (path if path.startswith("/") else f"/{path}")
    stripped = prefix
    for handler in route.get("handle", ()):
        for inner in handler.get("routes", ()):
            yield from _paths(inner, stripped)
            for one in inner.get("handle", ()):
                stripped += one.get("strip_path_prefix", "").rstrip("/")


def _meeting(base: str, site: JSON) -> Iterator[Sample]:
    """A request that meets each matcher on methods, fields and the query."""
    for route in _routes(site):
        for matcher in route.get("match", ()):
            for one in (matcher, *matcher.get("not", ())):
                path = next(iter(one.get("path", ())), "/sample").replace("*", "sample")
                path = path if path.startswith("/") else f"/{path}"
                for method in one.get("method", ()):
                    yield Sample(method, base + path)
                fields = [
                    (name.lower(), values[0].replace("*", "sample"))
                    for name, values in (one.get("header") or {}).items() if values
                ]  # fmt: skip
                if "upgrade" in dict(fields):
                    yield Sample("GET", base + path, upgrade_headers())
                elif fields:
                    yield Sample("GET", base + path, fields)
                for name, values in (one.get("query") or {}).items():
                    value = values[0].replace("*", "sample")
                    yield Sample("GET", f"{base}{path}?{name}={value}")
