"""Settings outside of routes: workers, user, logs, TLS, timeouts, addresses."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from typing import Any

from quicedge.config.groups import KeyExchangeGroup
from quicedge.config.limits import MAX_WORKERS
from quicedge.migrate.document import Section
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.servers import Listen, Server
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.values import duration, number_of, time_of
from quicedge.migrate.nginx.world import World

_LEVELS = {"debug": "debug", "info": "info", "notice": "info", "warn": "warning"}
"""Of error_log; all others are errors."""


def main_settings(top: Sequence[Directive], world: World) -> None:
    """Directives outside of `http`."""
    note, keys = world.notebook, world.document.top.keys
    for directive in top:
        name, args = directive.name, directive.args
        if name == "worker_processes":
            if args[0] == "auto":
                keys["workers"] = "auto"
            elif number_of(directive) > 1:
                keys["workers"] = min(number_of(directive), MAX_WORKERS)
            note.translated(directive, "workers")
        elif name == "user":
            _user(directive, world)
        elif name == "pid":
            keys["pid_file"] = args[0]
            note.translated(directive, "pid_file")
        elif name == "events":
            note.translated(directive)
        elif name == "error_log":
            _error_log(directive, world)
        elif name == "http":
            note.translated(directive)


def _user(directive: Directive, world: World) -> None:
    user = directive.args[0]
    if user in ("root", "0"):
        words = "workers must not run as root; name another user"
        world.notebook.left_out(directive, words)
        return
    keys = world.document.top.keys
    keys["user"] = user
    if len(directive.args) > 1:
        keys["group"] = directive.args[1]
    world.notebook.translated(directive)
    try:
        pwd.getpwnam(user)
    except KeyError:
        world.supply(f"the user {user}, which is not known on this machine")


def _error_log(directive: Directive, world: World) -> None:
    log = world.document.section("log").keys
    name, level = directive.args[0], directive.args[1] if len(directive.args) > 1 else "error"
    found = _LEVELS.get(level, "error")
    if "file" in log or "level" in log:
        world.notebook.left_out(directive, "there is one log")
        return
    if name == "stderr" or name.startswith("/dev/"):
        pass
    elif name.startswith(("syslog:", "memory:")):
        world.notebook.left_out(directive, "the log goes to a file or standard error")
        return
    else:
        log["file"] = world.path(name)
    if found != "info":
        log["level"] = found
    world.notebook.translated(directive)


def http_settings(scopes: Sequence[Scope], world: World) -> None:
    """What quicedge has once: logs and timeouts of clients. `scopes`: `http` and its servers."""
    _access_log(scopes, world)
    limits: dict[str, Any] = {}
    for name, key, words in (
        ("client_header_timeout", "header_timeout", ""),
        ("client_body_timeout", "body_timeout", "over which content must average 4 bytes/s"),
        ("send_timeout", "response_timeout", "within which a client must take 1 KB"),
        ("keepalive_timeout", "keepalive_timeout", ""),
    ):
        found = dict.fromkeys(d for scope in scopes for d in scope.all(name))
        times = {d: time_of(d) for d in found if d.args[0] != "off"}
        if not times:
            continue
        most = max(times.values())
        for directive, time in times.items():
            if time < most:
                text = f"one time for all hosts: {duration(most)}"
                world.notebook.different(directive, text, visible.status("", 408))
            elif words:
                effect = visible.status("", 408)
                world.notebook.different(directive, f"{key}, {words}", effect)
            else:
                world.notebook.translated(directive, key)
        if most > 0:
            limits[key] = duration(most)
        elif name == "keepalive_timeout":
            limits[key] = "1s"
    if limits:
        world.document.section("limits").keys.update(limits)


def _access_log(scopes: Sequence[Scope], world: World) -> None:
    note = world.notebook
    found = list(dict.fromkeys(d for scope in scopes for d in scope.all("access_log")))
    files = [d for d in found if d.args[0] != "off"]
    log = world.document.section("log").keys if found else {}
    if found and not files:
        log["access"] = False
        for directive in found:
            note.translated(directive)
        return
    for index, directive in enumerate(files):
        name = directive.args[0]
        if index > 0 or name.startswith("syslog:") or "$" in name:
            note.left_out(directive, "there is one access log, whose records have the host")
        elif name.startswith("/dev/"):
            note.translated(directive)
        else:
            log["access_file"] = world.path(name)
            words = "records in quicedge's own format"
            note.different(directive, words)
    for directive in found:
        if directive not in files:
            note.left_out(directive, "requests of all routes are logged")


# --- addresses ------------------------------------------------------------------------------------

_USUAL = {"0.0.0.0:443", "[::]:443"}


def addresses(tls: Sequence[Server], redirecting: Sequence[Server], world: World) -> None:
    """`listen` and `redirect_http`."""
    note, keys = world.notebook, world.document.top.keys
    listening: dict[str, list[Listen]] = {}
    plain: dict[str, list[Listen]] = {}
    any_tls = any(server.is_tls for server in tls)
    for server in [*tls, *redirecting]:
        for listen in server.listens:
            if listen.is_tls or listen.is_quic:
                listening.setdefault(listen.address, []).append(listen)
            elif server in redirecting or any_tls or listen.port == 80:
                plain.setdefault(listen.address, []).append(listen)
            else:
                listening.setdefault(listen.address, []).append(listen)
    if not listening:
        for address, found in plain.items():
            host = address.rpartition(":")[0]
            listening.setdefault(f"{host}:443", []).extend(found)
    for address in [a for a in plain if a in listening]:
        del plain[address]
    entries = [_entry(address, found, world) for address, found in listening.items()]
    if set(map(str, entries)) != _USUAL:
        keys["listen"] = entries
    if plain:
        keys["redirect_http"] = list(plain)
    of_redirects = {listen for server in redirecting for listen in server.listens}
    for found in plain.values():
        for listen in found:
            _plain_listen(listen, listen in of_redirects, world)
    _protocols(tls, world)
    for server in [*tls, *redirecting]:
        for listen in server.listens:
            if listen.directive not in note and listen.directive.name == "listen":
                note.translated(listen.directive)


def _entry(address: str, found: Sequence[Listen], world: World) -> Any:
    note = world.notebook
    for listen in found:
        if not (listen.is_tls or listen.is_quic) and listen.directive.name == "listen":
            words = "over TLS: quicedge serves no plain HTTP"
            note.different(listen.directive, words, visible.SCHEME)
            world.supply("certificates: [tls.acme], or [[tls.certificates]]")
    if any(listen.proxy_protocol for listen in found):
        proxies = _trusted(world)
        if proxies:
            return {"address": address, "proxy_protocol": proxies}
        for listen in found:
            if listen.proxy_protocol:
                words = "proxy_protocol requires set_real_ip_from, the networks of the balancers"
                note.different(listen.directive, words, *visible.ANSWER)
    return address


def _trusted(world: World) -> list[str]:
    """The networks of load balancers that send PROXY headers."""
    networks = []
    for directive in world.real_ip:
        if directive.name == "set_real_ip_from" and re.fullmatch(
            r"[0-9a-fA-F.:/]+", directive.args[0]
        ):
            networks.append(directive.args[0])
            world.notebook.translated(directive, "proxy_protocol of listen")
        elif directive.name == "real_ip_header" and directive.args == ["proxy_protocol"]:
            world.notebook.translated(directive, "proxy_protocol of listen")
    return list(dict.fromkeys(networks))


def _plain_listen(listen: Listen, is_redirect: bool, world: World) -> None:
    if listen.directive.name != "listen":
        return
    if is_redirect:
        words = "redirect_http, with status 308"
        # Unknown hosts are redirected to themselves, and not to the host of this server.
        effects = (visible.SCHEME, visible.STATUS, *visible.client(""))
        world.notebook.different(listen.directive, words, *effects)
    else:
        words = "redirected to https: quicedge serves no plain HTTP"
        world.notebook.different(
            listen.directive, words, visible.SCHEME, visible.status("", 308), visible.REACHED
        )


def _protocols(servers: Sequence[Server], world: World) -> None:
    note = world.notebook
    for server in servers:
        for directive in server.body:
            if directive.name == "http2" or directive.name == "http3":
                note.translated(directive, "offered to all clients")
            elif directive.name == "quic_retry":
                if directive.args == ["on"]:
                    world.document.section("quic").keys["retry"] = "always"
                note.translated(directive)


# --- TLS ------------------------------------------------------------------------------------------


def tls_settings(http: Scope, servers: Sequence[Server], world: World) -> None:
    """Certificates, versions and certificates of clients."""
    note, document = world.notebook, world.document
    seen: set[str] = set()
    for server in servers:
        scope = http.inside(server.body)
        certificates = scope.all("ssl_certificate")
        keys = scope.all("ssl_certificate_key")
        for certificate, key in zip(certificates, keys, strict=False):
            _certificate(certificate, key, server, seen, world)
        _client_auth(scope, server, world)
        reject = scope.last("ssl_reject_handshake")
        if reject is not None and reject.args == ["on"]:
            document.section("tls").keys["require_server_name"] = True
            note.translated(reject, "tls.require_server_name")
        early_data = scope.last("ssl_early_data")
        if early_data is not None and early_data.args[:1] == ["on"]:
            document.section("quic").keys["early_data"] = True
            note.different(early_data, "on QUIC; TLS on TCP has none")
        else:
            note.translated(early_data)
    _versions([http, *(http.inside(server.body) for server in servers)], world)
    if servers and not document.certificates:
        world.supply("certificates: [tls.acme], or [[tls.certificates]]")


def _certificate(
    certificate: Directive, key: Directive, server: Server, seen: set[str], world: World
) -> None:
    note, document = world.notebook, world.document
    cert_file, key_file = certificate.args[0], key.args[0]
    if "$" in cert_file + key_file or cert_file.startswith("data:"):
        words = "certificates are files; see tls.certificate_directories"
        note.left_out(certificate, words)
        note.left_out(key, words)
        return
    if key_file.startswith("engine:"):
        note.left_out(key, "keys are files")
        return
    note.translated(certificate)
    note.translated(key)
    cert = world.path(cert_file)
    is_default = any(listen.is_tls for listen in server.default_of)
    if cert in seen:
        return
    seen.add(cert)
    keys = {"cert": cert, "key": world.path(key_file)}
    section = Section(keys, [f"{os.path.basename(certificate.file)}:{certificate.line}"])
    if is_default and not any(s.keys.get("default") for s in document.certificates):
        section.keys["default"] = True
    document.certificates.append(section)
    for name in (cert, world.path(key_file)):
        if not os.path.exists(name):
            world.supply(f"{name}, which is not on this machine")


def _client_auth(scope: Scope, server: Server, world: World) -> None:
    note = world.notebook
    verify, authority = scope.last("ssl_verify_client"), scope.last("ssl_client_certificate")
    if verify is None or verify.args[0] == "off":
        note.translated(verify)
        return
    if authority is None or verify.args[0] == "optional_no_ca":
        words = "certificates are always verified, against ssl_client_certificate"
        note.left_out(verify, words, *visible.ANSWER)
        return
    hosts = list(server.hosts)
    if any(listen.is_tls for listen in server.default_of) or not hosts:
        hosts.append("*")
    taken = {host for section in world.document.client_auth for host in section.keys["hosts"]}
    hosts = [host for host in hosts if host not in taken]
    note.translated(authority)
    if verify.args[0] == "optional":
        note.translated(verify)
    else:
        words = "clients without a certificate are refused in the handshake, not with 400"
        note.different(verify, words, visible.status(400))
    if not hosts:
        return
    keys: dict[str, Any] = {"client_ca": world.path(authority.args[0]), "hosts": hosts}
    if verify.args[0] == "optional":
        keys["mode"] = "request"
    crl = scope.last("ssl_crl")
    if crl is not None:
        keys["crl"] = [world.path(crl.args[0])]
        note.translated(crl)
    comment = f"{os.path.basename(authority.file)}:{authority.line}"
    world.document.client_auth.append(Section(keys, [comment]))
    if not os.path.exists(keys["client_ca"]):
        world.supply(f"{keys['client_ca']}, which is not on this machine")


_GROUPS = {
    "x25519": "x25519", "prime256v1": "secp256r1", "secp256r1": "secp256r1", "p-256": "secp256r1",
    "secp384r1": "secp384r1", "p-384": "secp384r1", "secp521r1": "secp521r1",
    "p-521": "secp521r1", "x448": "x448", "x25519mlkem768": "X25519MLKEM768",
    "secp256r1mlkem768": "SecP256r1MLKEM768",
}  # fmt: skip


def _versions(scopes: Sequence[Scope], world: World) -> None:
    note = world.notebook
    protocols = list(dict.fromkeys(d for s in scopes for d in s.all("ssl_protocols")))
    if protocols and all(d.args == ["TLSv1.3"] for d in protocols):
        world.document.section("tls").keys["policy"] = "modern"
    for directive in protocols:
        if set(directive.args) <= {"TLSv1.2", "TLSv1.3"}:
            note.translated(directive, "tls.policy")
        else:
            old = [name for name in directive.args if name not in ("TLSv1.2", "TLSv1.3")]
            note.different(directive, f"without {' and '.join(old)}")
    for name, words in (
        ("ssl_ciphers", "tls.policy: ECDHE with AES-GCM or ChaCha20"),
        ("ssl_prefer_server_ciphers", "tls.policy"),
    ):
        for directive in dict.fromkeys(d for s in scopes for d in s.all(name)):
            note.different(directive, words)
    for name in ("ssl_session_cache", "ssl_session_tickets", "ssl_session_timeout"):
        for directive in dict.fromkeys(d for s in scopes for d in s.all(name)):
            if directive.args[0] == "off":
                note.different(directive, "sessions are resumed by tickets with keys that rotate")
            else:
                note.translated(directive, "sessions are resumed by tickets")
    curves = list(dict.fromkeys(d for s in scopes for d in s.all("ssl_ecdh_curve")))
    for index, directive in enumerate(curves):
        names = directive.args[0].split(":")
        known = [_GROUPS[name.lower()] for name in names if name.lower() in _GROUPS]
        if names == ["auto"]:
            note.translated(directive, "tls.groups")
            continue
        if not known or index > 0:
            note.different(directive, "one list for all hosts: tls.groups")
            continue
        usable: list[KeyExchangeGroup] = list(dict.fromkeys(known))  # type: ignore[arg-type]
        world.document.section("tls").keys["groups"] = usable
        if len(known) < len(names):
            note.different(directive, "tls.groups, without those that quicedge does not have")
        else:
            note.translated(directive, "tls.groups")
