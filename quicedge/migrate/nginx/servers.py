"""Servers: where they listen, their names, and which are served over TLS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from quicedge.config.hostnames import host_problem
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.world import World


@dataclass(frozen=True)
class Listen:
    """One `listen` directive."""

    directive: Directive
    address: str
    """`host:port`, as `listen` of quicedge has it."""
    port: int
    is_tls: bool
    is_quic: bool
    is_default: bool
    proxy_protocol: bool

    @property
    def socket(self) -> tuple[str, bool]:
        return self.address, self.is_quic


@dataclass(eq=False)
class Server:
    """A `server` block."""

    directive: Directive
    listens: list[Listen]
    hosts: list[str]
    """Names as routes have them."""
    names: list[str]
    """All arguments of `server_name`."""
    default_of: list[Listen] = field(default_factory=list)
    """Where it gets the requests that no other server is for."""

    @property
    def body(self) -> Sequence[Directive]:
        return self.directive.body

    @property
    def is_tls(self) -> bool:
        return any(listen.is_tls or listen.is_quic for listen in self.listens)

    @property
    def port(self) -> int:
        tls = [listen.port for listen in self.listens if listen.is_tls]
        return tls[0] if tls else 443

    @property
    def first_name(self) -> str:
        return next((name for name in self.names if name), "")


_ADDRESS = re.compile(r"(?:(\[[^\]]+\]|\*|[A-Za-z0-9._-]+):)?(\d+)|(\[[^\]]+\]|[A-Za-z0-9._-]+)")


def server_of(directive: Directive, world: World) -> Server:
    """A `server` block with its addresses and names."""
    ssl_on = next((d for d in directive.body if d.name == "ssl"), None)
    is_ssl = ssl_on is not None and ssl_on.args == ["on"]
    world.notebook.translated(ssl_on)
    world.notebook.translated(directive)
    listens = []
    for item in directive.body:
        if item.name == "listen":
            listen = _listen(item, is_ssl, world)
            if listen is not None:
                listens.append(listen)
    if not any(item.name == "listen" for item in directive.body):
        listens = [Listen(directive, "0.0.0.0:80", 80, is_ssl, False, False, False)]
    names, hosts = _names(directive, world)
    return Server(directive, listens, hosts, names)


def _listen(directive: Directive, is_ssl: bool, world: World) -> Listen | None:
    text, *options = directive.args
    if text.startswith("unix:"):
        words = "quicedge listens on addresses only"
        world.notebook.left_out(directive, words, *visible.ANSWER)
        return None
    found = _ADDRESS.fullmatch(text)
    if found is None:
        world.notebook.left_out(directive, f"{text} is no address", *visible.ANSWER)
        return None
    host = found[1] or found[3] or "*"
    port = int(found[2] or 80)
    address = f"{'0.0.0.0' if host == '*' else host}:{port}"
    return Listen(
        directive, address, port, is_ssl or "ssl" in options, "quic" in options,
        "default_server" in options or "default" in options, "proxy_protocol" in options,
    )  # fmt: skip


def _names(directive: Directive, world: World) -> tuple[list[str], list[str]]:
    names: list[str] = []
    hosts: list[str] = []
    for item in directive.body:
        if item.name != "server_name":
            continue
        names += item.args
        left: list[str] = []
        for name in item.args:
            found = _hosts(name)
            if not found and name not in ("_", "", "-", "--", "localhost.invalid"):
                left.append(name)
            hosts += [host for host in found if host not in hosts]
        if left:
            words = f"hosts are names and *.names; without {', '.join(left)}"
            if len(left) == len(item.args):
                world.notebook.left_out(item, words, *visible.ELSEWHERE)
            else:
                world.notebook.different(item, words, *visible.ELSEWHERE)
        else:
            world.notebook.translated(item)
    return names, hosts


def _hosts(name: str) -> list[str]:
    """The hosts of routes for one name; empty: there is none."""
    if name.startswith("~"):
        return _enumerated(name[1:])
    name = name.lower().rstrip(".")
    if name in ("_", ""):
        return []
    found = [name[1:], f"*{name}"] if name.startswith(".") else [name]
    return [] if any(host_problem(host.removeprefix("*.")) for host in found) else found


def _enumerated(pattern: str) -> list[str]:
    r"""The names in `^(www\.)?example\.com$` or `^(a|b)\.example\.com$`."""
    body = pattern.removeprefix("(?i)")
    if not (body.startswith("^") and body.endswith("$")):
        return []
    body = re.sub(r"\(\?<\w+>", "(", body[1:-1]).replace("(?:", "(")
    found = [""]
    at = 0
    while at < len(body):
        group = re.compile(r"\(([^()]*)\)(\??)").match(body, at)
        if group is not None:
            choices = [_plain(text) for text in group[1].split("|")]
            at = group.end()
            if group[2]:
                choices.append("")
        else:
            piece = re.compile(r"(?:[A-Za-z0-9_-]|\\[.-])(?![?*+{])").match(body, at)
            if piece is None:
                return []
            choices, at = [_plain(piece[0])], piece.end()
        if None in choices or len(found) * len(choices) > 64:
            return []
        found = [start + (choice or "") for start in found for choice in choices]
    return found if all(not host_problem(name) for name in found) else []


def _plain(text: str) -> str | None:
    """A regular expression that stands for itself alone, as text."""
    plain = text.replace("\\.", ".").replace("\\-", "-")
    is_plain = re.fullmatch(r"(?:[A-Za-z0-9_-]|\\[.-])*", text) is not None
    return plain if is_plain else None


def choose_defaults(servers: Sequence[Server]) -> None:
    """Note which server is the default one of each address: the one that says so, or the first."""
    chosen: dict[tuple[str, bool], tuple[Server, bool]] = {}
    for server in servers:
        for listen in server.listens:
            first = chosen.setdefault(listen.socket, (server, listen.is_default))
            if listen.is_default and not first[1]:
                chosen[listen.socket] = server, True
    for server in servers:
        server.default_of = [
            listen for listen in server.listens if chosen[listen.socket][0] is server
        ]


_HOST = r"\$(?:\{host\}|host|\{http_host\}|http_host)"
_SELF = re.compile(
    rf"https://(?:{_HOST}|(?P<name>\$server_name|\$\{{server_name\}}|[A-Za-z0-9.-]+))(?::443)?"
    r"\$(?:\{request_uri\}|request_uri|\{uri\}\$is_args\$args|uri\$is_args\$args)"
)
_SELF_REWRITTEN = re.compile(rf"https://{_HOST}(?:\$request_uri\??|/?\$1)")
_WITHOUT_CONTENT = frozenset(
    (
        "access_log", "add_header", "charset", "error_log", "include", "index", "listen", "root",
        "server_name", "server_tokens",
    )
)  # fmt: skip
"""Directives that decide nothing where all requests are redirected."""


def redirects_to_itself(server: Server) -> bool:
    """Whether a server does nothing but redirect to https on the same host."""
    found = [_redirects(directive, server) for directive in server.body]
    return None not in found and True in found


def _redirects(directive: Directive, server: Server) -> bool | None:
    """Whether a directive redirects to https on the same host; None: it does something else."""
    args = directive.args
    if directive.name in _WITHOUT_CONTENT:
        return False
    if directive.name == "return":
        if args[:1] in (["404"], ["444"]):
            return False
        found = _SELF.fullmatch(args[-1])
        return None if found is None or not _is_name_of(found["name"], server) else True
    if directive.name == "rewrite" and len(args) > 1:
        return True if _SELF_REWRITTEN.fullmatch(args[1]) else None
    if directive.name == "if" and args[:1] in (["$host"], ["$scheme"], ["$https"]):
        # certbot's `if ($host = example.com) { return 301 https://$host$request_uri; }`.
        return True if any(_redirects(inner, server) for inner in directive.body) else None
    if directive.name == "location":
        if any(_redirects(inner, server) for inner in directive.body):
            return True
        return False if ".well-known/acme-challenge" in args[-1] else None
    return None


def _is_name_of(name: str | None, server: Server) -> bool:
    """Whether a host is the only one of a server; None: it is whatever was asked for."""
    if name is not None and name.startswith("$"):
        name = server.first_name
    return name is None or server.hosts == [name.lower()]
