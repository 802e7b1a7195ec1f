"""The configuration as a resource of the admin API: shown, tried and replaced."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quicedge.admin.answers import answer_json
from quicedge.admin.errors import RefusedError
from quicedge.admin.guard import content_type
from quicedge.admin.view import EdgeView
from quicedge.config.changes import without_passwords, written

PATH = "/api/v1/config"
TYPES = {"application/toml": False, "application/json": True}
"""Content types of a configuration, and whether it is JSON."""


def configuration_routes(edge: EdgeView, *, may_change: bool) -> list[Route]:
    """`may_change`: the callers are known to be the operator, by a token or a unix socket."""

    async def show(request: Request) -> Response:
        return answer_json(written(without_passwords(edge.config)))

    async def change(request: Request) -> Response:
        if not may_change:
            # Any user of the machine can connect to a loopback port; who may say what is served
            # can read every file that the edge can read.
            return answer_json(
                {"error": "requires admin.token_file, or admin.listen on a unix socket"}, 403
            )
        dry_run = "validate" in request.query_params
        is_json = TYPES[content_type(request.headers)]
        try:
            found = await edge.configure(await request.body(), is_json=is_json, dry_run=dry_run)
        except RefusedError as error:
            return answer_json({"error": str(error)}, 400)
        return answer_json({"validated" if dry_run else "changed": found})

    return [Route(PATH, show), Route(PATH, change, methods=["POST"])]
