"""The translation: quicedge with the translated configuration, on addresses of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quicedge.migrate.document import Document, Section
from quicedge.migrate.toml_writer import write_toml
from quicedge.migrate.verify.addresses import Ports, canonical_address, split_url
from quicedge.migrate.verify.material import USER, Material
from quicedge.migrate.verify.message import Sample
from quicedge.migrate.verify.origins import Origins
from quicedge.migrate.verify.process import EdgeProcess, accepts

_DROPPED = (
    "user", "group", "pid_file", "state_directory", "fleet", "otel", "qlog", "alt_svc", "http3",
    "quic",
)  # fmt: skip
"""Sections and keys about the machine, or about protocols that the original does not speak."""
_TLS_KEPT = ("policy", "require_server_name", "client_auth")


class EdgeConfiguration:
    """The translated configuration with stand-ins, and where it listens."""

    def __init__(
        self, tree: Mapping[str, Any], directory: Path, base: Path, origins: Origins,
        material: Material, ports: Ports,
    ) -> None:  # fmt: skip
        """`base` is what its file names are relative to."""
        self._directory = directory
        self._base = base
        self._origins = origins
        self._material = material
        self.tls_port = ports.take()
        self.plain_port = None if tree.get("redirect_http") is False else ports.take()
        self.tree = self._rewritten(tree)

    def process(self) -> EdgeProcess:
        """Write it, and make the process that runs it."""
        path = self._directory / "quicedge.toml"
        path.write_text(write_toml(Document(Section(self.tree))))
        command = [sys.executable, "-m", "quicedge", "serve", "--config", str(path)]
        return EdgeProcess(
            "quicedge", command, self._directory, lambda: accepts(self.tls_port, tls=True)
        )

    @property
    def names(self) -> dict[int, str]:
        """The port, as in `:443`, that each local one stands for."""
        plain = {self.plain_port: ":80"} if self.plain_port else {}
        return {self.tls_port: ":443", **plain}

    def port_for(self, sample: Sample) -> int | None:
        return self.tls_port if sample.is_secure else self.plain_port

    def tls_port_for(self, sample: Sample) -> int | None:
        return None if sample.is_secure else self.tls_port

    def _rewritten(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        found = {key: value for key, value in tree.items() if key not in _DROPPED}
        plain = [f"127.0.0.1:{self.plain_port}"] if self.plain_port else False
        found |= {
            "listen": [f"127.0.0.1:{self.tls_port}"],
            "protocols": ["h2", "http/1.1"],
            "redirect_http": plain,
            "workers": 1,
            "control_socket": str(self._directory / "control.sock"),
            "admin": {"enabled": False},
            "log": {"file": str(self._directory / "quicedge.log"), "access": False},
            "tls": self._tls(tree.get("tls", {})),
            "upstreams": {
                name: self._upstream(upstream)
                for name, upstream in tree.get("upstreams", {}).items()
            },
            "routes": [
                {**route, "filters": [self._filter(one) for one in route.get("filters", ())]}
                for route in tree.get("routes", ())
            ],
            "filters": [self._filter(one) for one in tree.get("filters", ())],
        }
        if "limits" in found:
            found["limits"] = {k: v for k, v in found["limits"].items() if k != "redis"}
        return found

    def _tls(self, tls: Mapping[str, Any]) -> dict[str, Any]:
        found = {key: tls[key] for key in _TLS_KEPT if key in tls}
        if "client_auth" in found:
            found["client_auth"] = [
                {**{k: v for k, v in one.items() if k != "crl"}, "client_ca": self._material.ca}
                for one in found["client_auth"]
            ]
        found["certificates"] = [{"cert": self._material.cert, "key": self._material.key}]
        return found

    def _upstream(self, upstream: Mapping[str, Any]) -> dict[str, Any]:
        # Health checks would be among what the origins see.
        dropped = ("health_path", "health_interval", "tls_ca")
        found = {key: value for key, value in upstream.items() if key not in dropped}
        if "root" in found:
            found["root"] = self._material.site(str(self._base / found["root"]))
        if "servers" in found:
            found["servers"] = [self._server(one) for one in found["servers"]]
            if any("https://" in str(one) for one in found["servers"]):
                found["tls_verify"] = False
        return found

    def _server(self, server: str | Mapping[str, Any]) -> str | dict[str, Any]:
        if not isinstance(server, str):
            return {**server, "url": self._server(server["url"])}
        scheme, authority, _ = split_url(server)
        scheme = scheme or "http"
        address = canonical_address(authority, 443 if scheme == "https" else 80)
        return f"{scheme}://127.0.0.1:{self._origins.port_of(address)}"

    def _filter(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {kind: dict(self._settings(kind, settings)) for kind, settings in entry.items()}

    def _settings(self, kind: str, settings: Any) -> Iterator[tuple[str, Any]]:
        """The settings of a filter with files and passwords in place of the real ones."""
        for key, value in settings.items():
            if kind == "basic_auth" and key == "htpasswd":
                yield key, self._material.htpasswd
            elif kind == "basic_auth" and key == "users":
                yield key, {USER: self._material.password_hash}
            elif kind == "error_pages" and key == "pages":
                yield key, {k: self._material.file(str(self._base / v)) for k, v in value.items()}
            elif kind == "maintenance" and key == "page":
                yield key, self._material.file(str(self._base / value))
            else:
                yield key, value
