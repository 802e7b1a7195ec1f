"""Configurations of nginx, translated for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from quicedge.config.loader import parse_config
from quicedge.config.schema import Config, Route
from quicedge.http.message import Request
from quicedge.migrate.nginx.translation import translate
from quicedge.migrate.report import Line, Status, Translation
from quicedge.proxy.client import ClientInfo, TlsFacts
from quicedge.proxy.router import Router


@dataclass
class _Client:
    address: tuple[str, int] | None
    tls: TlsFacts
    http_version: bytes = b"3"
    early_data: bool = False


class Migrated:
    """A translation, and questions about it."""

    def __init__(self, directory: Path, text: str) -> None:
        self.path = directory / "nginx.conf"
        self.path.write_text(text)
        self.translation: Translation = translate(self.path)
        self.keys = self.translation.document.as_dict()
        self.config: Config = parse_config(self.keys, "quicedge.toml", directory, machine=False)
        self._router = Router(self.config.routes)

    def route(
        self, path: str, host: str = "a.test", method: str = "GET",
        fields: Sequence[tuple[str, str]] = (), client: str = "192.0.2.1",
    ) -> Route:  # fmt: skip
        """The route that a request takes."""
        lines = [(name.encode(), value.encode()) for name, value in fields]
        request = Request(method.encode(), b"https", host.encode(), path.encode(), lines)
        asking = _Client((client, 50000), TlsFacts("TLSv1.3", server_name=host))
        found = self._router.find(host.encode(), path.encode(), request, cast(ClientInfo, asking))
        assert found is not None, f"no route for {path}"
        return found

    def filters(self, path: str, **request: Any) -> list[dict[str, Any]]:
        """The filters of the route of a request, as they are written."""
        route = self.route(path, **request)
        at = self.config.routes.index(route)
        return cast(list[dict[str, Any]], self.keys["routes"][at].get("filters", []))

    def answer(self, path: str, **request: Any) -> dict[str, Any]:
        """The redirect or response that a route gives."""
        last = self.filters(path, **request)[-1]
        return cast(dict[str, Any], last.get("redirect") or last["respond"])

    def upstream(self, path: str, **request: Any) -> dict[str, Any]:
        """The upstream of the route of a request, as it is written."""
        name = self.route(path, **request).upstream
        assert name is not None
        return cast(dict[str, Any], self.keys["upstreams"][name])

    def line(self, start: str) -> Line:
        """The line of the report whose directive begins so."""
        return next(line for line in self.translation.report if line.text.startswith(start))

    def status(self, start: str) -> Status:
        return self.line(start).status


def site(text: str, *, http: str = "", names: str = "a.test") -> str:
    """A configuration with one server."""
    return (
        f"events {{}}\nhttp {{\n{http}\nserver {{\nlisten 443 ssl;\nserver_name {names};\n"
        f"ssl_certificate a.pem;\nssl_certificate_key a.key;\n{text}\n}}\n}}\n"
    )
