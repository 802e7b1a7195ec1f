"""The dashboard: one page, one style sheet and one script, served from the package."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = {
    "/": ("dashboard.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
}

# The page shows text that clients choose; only our own script may run.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def dashboard_routes() -> list[Route]:
    """Routes of the page and its assets."""

    async def asset(request: Request) -> Response:
        name, kind = _FILES[request.url.path]
        data = resources.files("quicedge.admin").joinpath("assets", name).read_bytes()
        return Response(
            data,
            headers={
                "content-security-policy": _POLICY,
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
                "cache-control": "no-cache",
            },
            media_type=kind,
        )

    return [Route(path, asset) for path in _FILES]
