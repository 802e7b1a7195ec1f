"""Answers: redirects, and fixed responses."""

from __future__ import annotations

from collections.abc import Iterator

from quicedge.config import filters as config
from quicedge.config.filterlimits import TEMPLATE_MAX_VALUE
from quicedge.http.message import Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.proxy.reply import Reply, text_reply
from quicedge.proxy.templates import Template
from quicedge.telemetry.outcomes import Outcome


class Redirect(RouteFilter):
    """Redirects to another place."""

    def __init__(self, settings: config.Redirect) -> None:
        self._to = Template(settings.to, for_url=True)
        self._status = settings.status

    def on_request(self, request: Request, exchange: Exchange) -> Reply:
        location = self._to.fill(exchange)
        if len(location) > TEMPLATE_MAX_VALUE:
            return text_reply(414, outcome=Outcome.URI_TOO_LONG)
        if location[:1] in (b"/", b"\\"):
            # A browser takes what follows two slashes for a host.
            location = b"/" + location.lstrip(b"/\\")
        return text_reply(self._status, [(b"location", location)])


_HTML = frozenset(("text/html", "application/xhtml+xml", "application/xml", "image/svg+xml"))
"""Media types of content in which scripts run."""


class Respond(RouteFilter):
    """Answers with a fixed status and content."""

    def __init__(self, settings: config.Respond) -> None:
        media_type = settings.content_type.partition(";")[0].strip().lower()
        self._body = Template(settings.body, for_html=media_type in _HTML)
        self._status = settings.status
        self._type = settings.content_type.encode()

    def on_request(self, request: Request, exchange: Exchange) -> Reply:
        body = self._body.fill_text(exchange)
        fields = [(b"content-type", self._type)] if body else []
        return Reply(Response(self._status, fields), body)


def build_redirect(
    given: config.Redirect, where: str, resources: Resources
) -> Iterator[RouteFilter]:
    yield Redirect(given)


def build_respond(given: config.Respond, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield Respond(given)
