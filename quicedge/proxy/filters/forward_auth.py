"""Authentication by another service, which is asked about each request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from quicedge.config import filters as config
from quicedge.config.filterlimits import AUTH_ANSWER_MAX_SIZE
from quicedge.http.errors import OriginFailure
from quicedge.http.forwarding import Written
from quicedge.http.message import Fields, Request, Response
from quicedge.http.semantics import response_fields
from quicedge.proxy.exchange import Exchange, Origin
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RequestResult, RouteFilter
from quicedge.proxy.filters.subrequest import ResponseTooLarge, fetch
from quicedge.proxy.reply import Reply, text_reply
from quicedge.proxy.templates import Template
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import UpstreamError

_OF_THE_BODY = frozenset(
    (b"content-length", b"content-type", b"content-encoding", b"expect", b"trailer", b"te")
)


class ForwardAuth(RouteFilter):
    """Asks a service with a GET that has the request's fields, and its target and method in
    X-Forwarded-Uri and X-Forwarded-Method.

    2xx lets the request pass, with the chosen fields of the answer; others of its fields the client
    gets with the response, such as the cookie of a session that was renewed. Any other answer goes
    to the client. If there is no answer, the request is refused.
    """

    timeout = None  # its own

    def __init__(
        self, settings: config.ForwardAuth, origin: Origin, *, tell_underscores: bool = False
    ) -> None:
        self._origin = origin
        self._path = Template(settings.path, for_url=True)
        self._sent = None
        if settings.request_headers is not None:
            self._sent = frozenset(name.lower().encode() for name in settings.request_headers)
        self._copied = frozenset(name.lower().encode() for name in settings.copy_headers)
        self._told = frozenset(name.lower().encode() for name in settings.client_headers)
        self._for_clients: dict[Exchange, Fields] = {}
        self.written = self._copied
        self._written = Written(self._copied, tell_underscores=tell_underscores)
        self._timeout = settings.timeout

    async def on_request(self, request: Request, exchange: Exchange) -> RequestResult:
        question = self._question(request, exchange)
        try:
            async with asyncio.timeout(self._timeout):
                answer = await fetch(self._origin, question, exchange, AUTH_ANSWER_MAX_SIZE)
        except TimeoutError:
            kind = OriginFailure.FIRST_BYTE_TIMEOUT
            reason = f"{self.name}: no answer within {self._timeout:g} seconds"
            return text_reply(kind.status, outcome=Outcome.of_origin(kind), reason=reason)
        except (UpstreamError, ResponseTooLarge) as error:
            outcome = Outcome.DENIED
            status, fields = 502, Fields()
            if isinstance(error, UpstreamError):
                outcome, status = Outcome.of_origin(error.kind), error.kind.status
                if error.retry_after is not None:
                    fields.append((b"retry-after", b"%d" % error.retry_after))
            return text_reply(status, fields, outcome=outcome, reason=f"{self.name}: {error}")
        response = answer.response
        if not 200 <= response.status < 300:
            head = Response(response.status, response_fields(response.fields), response.version)
            return Reply(head, answer.body, Outcome.DENIED)
        if self._told:
            fields = response_fields(response.fields)
            told = [line for line in fields if line[0] in self._told]
            if told and not exchange.response_over:
                self._for_clients[exchange] = told
        return self._passed(request, response)

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        told = self._for_clients.pop(exchange, None)
        if told:
            # Cookies are of different names; of all else the service has the last word.
            replaced = {name for name, _ in told if name != b"set-cookie"}
            if replaced:
                response.fields = [line for line in response.fields if line[0] not in replaced]
            response.fields += told
        return response

    def on_done(self, exchange: Exchange) -> None:
        self._for_clients.pop(exchange, None)

    def _question(self, request: Request, exchange: Exchange) -> Request:
        fields = [
            line
            for line in request.fields
            if line[0] not in _OF_THE_BODY and (self._sent is None or line[0] in self._sent)
        ]
        if self._sent is not None:
            fields += [line for line in request.fields if line[0].startswith(b"x-forwarded-")]
        fields.append((b"x-forwarded-method", exchange.request.method))
        fields.append((b"x-forwarded-uri", exchange.request.path))
        path = self._path.fill(exchange)
        return Request(b"GET", request.scheme, request.authority, path, fields, ended=True)

    def _passed(self, request: Request, answer: Response) -> Request:
        """The request with what the service says of its sender: never what the client says."""
        copied = self._copied
        if not copied:
            return request
        fields = self._written.dropped_from(request.fields)
        fields += [line for line in answer.fields if line[0] in copied]
        return request.with_fields(fields)


def build(given: config.ForwardAuth, where: str, resources: Resources) -> Iterator[RouteFilter]:
    origin = resources.upstreams[given.upstream]
    yield ForwardAuth(given, origin, tell_underscores=resources.tell_underscores)
