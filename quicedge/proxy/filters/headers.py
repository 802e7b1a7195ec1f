"""Rules for header fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quicedge.config import filters as config
from quicedge.config.filterlimits import TEMPLATE_MAX_VALUE
from quicedge.http.forwarding import Written
from quicedge.http.grammar import AUTHORITY
from quicedge.http.message import Fields, Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RequestResult, RouteFilter
from quicedge.proxy.reply import text_reply
from quicedge.proxy.templates import Template
from quicedge.telemetry.outcomes import Outcome


class Rules:
    """Changes of the fields of one message. Fields whose value turns out empty are not sent."""

    __slots__ = ("_add", "_default", "_dropped", "_set", "_written", "names")

    def __init__(self, rules: config.FieldRules, *, tell_underscores: bool = True) -> None:
        self._set = _templates(rules.set)
        self._default = _templates(rules.default)
        self._add = _templates(rules.add)
        removed = [name.lower().encode() for name in rules.remove]
        names = [name for name in removed if not name.endswith(b"*")]
        names += [name for name, _ in self._set]
        prefixes = [name[:-1] for name in removed if name.endswith(b"*")]
        self.names = frozenset(names)
        """Fields that are set or removed."""
        self._dropped = Written(names, prefixes, tell_underscores=tell_underscores)
        self._written = [*self._set, *self._add]

    def apply(self, fields: Fields, exchange: Exchange) -> Fields:
        """The fields as the rules make them."""
        dropped = self._dropped
        kept = dropped.dropped_from(fields) if dropped else list(fields)
        written = self._written
        if self._default:
            present = {name for name, _ in kept}
            written = [*(rule for rule in self._default if rule[0] not in present), *written]
        for name, template in written:
            value = template.constant
            if value is None:
                value = template.fill(exchange)
                if len(value) > TEMPLATE_MAX_VALUE:
                    continue
            if value:
                kept.append((name, value))
        return kept


def _templates(rules: Mapping[str, str]) -> list[tuple[bytes, Template]]:
    return [(name.lower().encode(), Template(value)) for name, value in rules.items()]


class RequestHeaders(RouteFilter):
    """Changes the fields of requests; Host is the authority that the origin is asked for."""

    def __init__(self, rules: config.FieldRules, *, tell_underscores: bool = False) -> None:
        hosts = [value for name, value in rules.set.items() if name.lower() == "host"]
        self._host = Template(hosts[0]) if hosts else None
        others = {name: value for name, value in rules.set.items() if name.lower() != "host"}
        rules = config.FieldRules(
            remove=rules.remove, set=others, default=rules.default, add=rules.add
        )
        self._rules = Rules(rules, tell_underscores=tell_underscores)
        self.written = self._rules.names

    def on_request(self, request: Request, exchange: Exchange) -> RequestResult:
        changed = request.with_fields(self._rules.apply(request.fields, exchange))
        if self._host is not None:
            authority = self._host.fill(exchange)
            if not AUTHORITY.fullmatch(authority):
                return text_reply(400, outcome=Outcome.MALFORMED, reason="host set to no host")
            changed.authority = authority
        return changed


class ResponseHeaders(RouteFilter):
    """Changes the fields of responses."""

    def __init__(self, rules: config.FieldRules) -> None:
        self._rules = Rules(rules)

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        fields = self._rules.apply(response.fields, exchange)
        return Response(response.status, fields, response.version)


def build(given: config.Headers, where: str, resources: Resources) -> Iterator[RouteFilter]:
    if given.request is not None:
        yield RequestHeaders(given.request, tell_underscores=resources.tell_underscores)
    if given.response is not None:
        yield ResponseHeaders(given.response)
