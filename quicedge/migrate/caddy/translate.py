"""A Caddyfile as a configuration of quicedge, with a report line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quicedge.http.forwarding import CLAIMED_BY_PROXIES
from quicedge.migrate.caddy.adapt import adapt
from quicedge.migrate.caddy.caddyfile import read_lines
from quicedge.migrate.caddy.conditions import UnsayableError
from quicedge.migrate.caddy.flow import Flow, Leaf
from quicedge.migrate.caddy.remarks import Remarks
from quicedge.migrate.document import Document, Section
from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.report import Note, Status, Translation
from quicedge.migrate.toml_writer import write_toml


def _client(aspect: Aspect, *names: str) -> tuple[Effect, ...]:
    return tuple(Effect(Side.CLIENT, aspect, name) for name in names)


def _origin(*names: str) -> tuple[Effect, ...]:
    return tuple(Effect(Side.ORIGIN, Aspect.HEADER, name) for name in names)


NOTES = [
    Note("Caddy compares paths without regard to case; routes do not"),
    Note(
        "plain HTTP is redirected to https with 308, for all hosts",
        (Effect(Side.CLIENT, Aspect.SCHEME), *_client(Aspect.STATUS, "->308")),
    ),
    Note(
        "requests for hosts without a site are answered 404, where Caddy sends an empty page",
        _client(Aspect.STATUS, "200->404"),
    ),
    Note("pages for errors are quicedge's own"),
    Note(
        "what clients claim in x-real-ip and the like is dropped, as in x-forwarded-for",
        _origin(*sorted(name.decode() for name in CLAIMED_BY_PROXIES)),
    ),
    Note(
        "origins are asked for what the client accepts; Caddy asks them for gzip on its own",
        _origin("accept-encoding"),
    ),
    Note(
        "OPTIONS on files is answered 204, other methods 405 for missing ones too; files of an "
        "unknown type have one; `vary` is sent only with what may be compressed",
        (
            *_client(Aspect.STATUS, "->204", "404->405"),
            *_client(Aspect.HEADER, "allow", "content-type", "vary"),
        ),
    ),
    Note(
        "responses that open a WebSocket pass no filter",
        _client(Aspect.HEADER, "101"),
    ),
]


def translate_caddyfile(path: Path) -> Translation:
    """Translate a Caddyfile; raises SourceError."""
    adapted = adapt(path)
    return _Translator(path, adapted).translation()


@dataclass
class _Translator:
    path: Path
    adapted: Mapping[str, Any]
    document: Document = field(default_factory=Document)
    to_supply: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.remarks = Remarks(str(self.path), read_lines(self.path))

    def translation(self) -> Translation:
        apps = self.adapted.get("apps", {})
        servers = apps.get("http", {}).get("servers", {})
        for server in servers.values():
            self._listen(server)
            self._server(server)
        if not self.document.top.keys.get("listen"):
            self.document.top.keys.pop("listen", None)
        self._tls(apps.get("tls", {}), servers)
        self._logs()
        self.remarks.option(
            "handle_errors",
            Status.LEFT_OUT,
            "pages for errors are files: see the filter error_pages",
            *_client(Aspect.BODY, ""),
            *_client(Aspect.STATUS, ""),
        )
        heading = [f"Translated from {self.path.name} by quicedge migrate; see its report."]
        return Translation(
            self.document,
            write_toml(self.document, heading),
            self.remarks.lines(),
            NOTES,
            list(self.to_supply),
        )

    # --- sites ------------------------------------------------------------------------------

    def _listen(self, server: Mapping[str, Any]) -> None:
        listen = self.document.top.keys.setdefault("listen", [])
        for address in server.get("listen", ()):
            host, _, port = address.rpartition(":")
            host = host.partition("/")[2] or host
            if port == "80":
                continue  # redirect_http
            for one in [host] if host else ["0.0.0.0", "[::]"]:
                if f"{one}:{port}" not in listen:
                    listen.append(f"{one}:{port}")

    def _server(self, server: Mapping[str, Any]) -> None:
        for route in server.get("routes", ()):
            matchers = route.get("match", ())
            hosts = [host for one in matchers for host in one.get("host", ())]
            port = str((server.get("listen") or [":443"])[0]).rpartition(":")[2]
            written = self.remarks.site(hosts or [f":{port}"])
            if written is not None and port != "443":
                words = (
                    "served over https; plain HTTP is redirected there" if port == "80"
                    else f"served over https on all addresses, not on port {port} alone"
                )  # fmt: skip
                self.remarks.mark(written, Status.DIFFERENT, words)
            flow = Flow(written, self.remarks, self._upstream, self.to_supply)
            body = [{"match": _without_hosts(matchers), "handle": route.get("handle", ())}]
            try:
                leaves = flow.leaves(body)
            except UnsayableError as error:
                text = ", ".join(hosts) or f":{port}"
                self.to_supply[f"the routes of {text}: {error}"] = None
                if written is not None:
                    self.remarks.mark(written, Status.LEFT_OUT, str(error))
                continue
            self.document.routes += self._routes(hosts, leaves)

    def _routes(self, hosts: Sequence[str], leaves: Sequence[Leaf]) -> Iterator[Section]:
        known: set[str] = set()
        for leaf in leaves:
            keys: dict[str, Any] = {}
            if hosts:
                keys["host"] = hosts[0] if len(hosts) == 1 else list(hosts)
            keys |= leaf.state.conditions.keys()
            place = repr(keys)
            if place in known:
                continue  # What comes here was answered by the one before.
            known.add(place)
            if leaf.upstream is not None:
                keys["upstream"] = leaf.upstream
            if leaf.state.max_body is not None:
                keys["max_body"] = leaf.state.max_body
            if leaf.state.filters:
                keys["filters"] = [dict(one) for one in leaf.state.filters]
            yield Section(keys)

    def _upstream(self, name: str, settings: Mapping[str, Any]) -> str:
        for known, section in self.document.upstreams.items():
            if section.keys == settings:
                return known
        first = (settings.get("servers") or [""])[0]
        host = re.match(r"https?://([a-z][a-z0-9-]*)", first)
        if host is not None and host[1] != "localhost":
            name = host[1]
        chosen, number = name, 1
        while chosen in self.document.upstreams:
            number += 1
            chosen = f"{name}{number}"
        self.document.upstreams[chosen] = Section(dict(settings))
        return chosen

    # --- the rest ---------------------------------------------------------------------------

    def _tls(self, tls: Mapping[str, Any], servers: Mapping[str, Any]) -> None:
        for pair in tls.get("certificates", {}).get("load_files", ()):
            self.document.certificates.append(
                Section({"cert": pair["certificate"], "key": pair["key"]})
            )
            self.remarks.option("tls", Status.TRANSLATED, "")
        hosts = {
            host for server in servers.values() for route in server.get("routes", ())
            for one in route.get("match", ()) for host in one.get("host", ())
        }  # fmt: skip
        public = sorted(host for host in hosts if _is_public(host))
        issuers = [
            issuer for policy in tls.get("automation", {}).get("policies", ())
            for issuer in policy.get("issuers", ())
        ]  # fmt: skip
        if any(issuer.get("module") == "internal" for issuer in issuers):
            self.remarks.option(
                "tls", Status.LEFT_OUT, "no authority of our own: a certificate for development"
            )
        if not public or (self.document.certificates and not issuers):
            return
        acme = self.document.section("tls.acme")
        email = next((one["email"] for one in issuers if one.get("email")), None)
        if email:
            acme.keys["email"] = email
            self.remarks.option("email", Status.TRANSLATED, "tls.acme.email")
        acme.keys["agree_to_terms"] = False
        self.to_supply[
            "tls.acme.agree_to_terms = true, once you have read the terms of Let's Encrypt; "
            "and state_directory, where the certificates are kept"
        ] = None

    def _logs(self) -> None:
        logs = self.adapted.get("logging", {}).get("logs", {})
        for name, log in logs.items():
            writer = log.get("writer", {})
            if name == "default" or writer.get("output") != "file":
                continue
            self.document.section("log").keys.setdefault("access_file", writer["filename"])
        self.remarks.option("log", Status.DIFFERENT, "one access log of all sites ([log])")


def _without_hosts(matchers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Matchers of a site beside its hosts; empty: there are none."""
    rest = [{key: value for key, value in one.items() if key != "host"} for one in matchers]
    return rest if all(rest) else []


def _is_public(host: str) -> bool:
    """Whether a public authority issues certificates for a host."""
    is_name = "." in host and not re.fullmatch(r"[\d.:\[\]]+", host)
    return is_name and not host.endswith((".localhost", ".local", ".internal", ".home.arpa"))
