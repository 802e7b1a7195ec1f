"""Asks an URL of the operator about a name; imported when certificates are ordered on demand."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from quicedge.config.acmelimits import ASK_TIMEOUT


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Who redirects has not said yes."""


_opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def ask(url: str, name: str) -> bool | None:
    """Whether the URL allows a name; None if it does not say. Blocks."""
    separator = "&" if "?" in url else "?"
    try:
        with _opener.open(f"{url}{separator}domain={quote(name)}", timeout=ASK_TIMEOUT) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        with error:
            return None if error.code >= 500 else False
    except (OSError, ValueError, http.client.HTTPException):
        return None
