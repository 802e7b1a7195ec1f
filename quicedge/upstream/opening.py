"""Opens requests on the servers of an upstream, as its circuit breaker and hedging decide."""

from __future__ import annotations

from typing import Protocol

from quicedge.http.message import Request
from quicedge.shares import Client
from quicedge.upstream.base import OriginStream, ResponseHandler
from quicedge.upstream.breaker import Call
from quicedge.upstream.hedging import HedgedServers, HedgedStream, Hedging
from quicedge.upstream.proxy_header import Peer
from quicedge.upstream.stream import UpstreamStream
from quicedge.upstream.unusable import FailedStream


class RequestedServers(HedgedServers, Protocol):
    """The servers of a group (`group.Upstream`, `limited.LimitedUpstream`)."""

    hedging: Hedging | None


def open_stream(
    group: RequestedServers,
    request: Request,
    handler: ResponseHandler,
    client: Client | None = None,
    peer: Peer | None = None,
) -> OriginStream:
    """Send a client's request, or refuse it; the handler is called after this returns."""
    call: Call | None = None
    if group.breaker is not None:
        call = group.breaker.admit(client)
        if call is None:
            return FailedStream(group.loop, handler, group.breaker.refusal())
    stream: HedgedStream | UpstreamStream
    if group.hedging is not None and group.hedging.covers(request):
        stream = HedgedStream(group, group.hedging, request, handler, client, peer, call)
    else:
        stream = UpstreamStream(group, request, handler, client, peer, call=call)
    stream.start()
    return stream
