"""Filters written in Python: the public interface.

A filter is a class whose objects are built when a configuration is loaded, one per entry of
`filters`, and whose methods are called for each request of the route:

    class AddUser(Filter):
        def __init__(self, header: str = "x-user") -> None:
            self.header = header

        def on_request(self, request: Request, context: Context) -> None:
            request.headers[self.header] = "anonymous"

Names of this package are stable: they change only with a new major version. See
`docs/python-filters.md`, and `quicedge.testing` for tests without an edge.
"""

from quicedge.filters.body import BodyTransform
from quicedge.filters.context import Client, Context
from quicedge.filters.filter import Filter
from quicedge.filters.headers import Headers
from quicedge.filters.messages import Request, Response

__all__ = ["BodyTransform", "Client", "Context", "Filter", "Headers", "Request", "Response"]
