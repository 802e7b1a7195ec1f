"""Building the filters of routes."""

from __future__ import annotations

from pathlib import Path

from quicedge.config.filters import KINDS
from quicedge.proxy.filters.build_route import unusable_filters
from tests.support.filtered import config_of

SETTINGS = {
    "redirect": "{ to = '/x' }",
    "respond": "{ body = 'x' }",
    "rewrite": "{ add_prefix = '/x' }",
    "headers": "{ request = { remove = ['x'] } }",
    "access": "{ deny = ['192.0.2.0/24'] }",
    "basic_auth": "{ users = { ann = '$2b$04$/5nR9sZHRAsasGCeOeG1HeCox9SN7sVGVTbxDd0wsJyfBZSR99LS2' } }",  # noqa: E501
    "forward_auth": "{ upstream = 'app' }",
    "cors": "{ origins = ['*'] }",
    "buffer": "{ request = true }",
    "error_pages": "{ pages = { 404 = 'page.html' } }",
    "mirror": "{ upstream = 'app' }",
    "python": "{ filter = 'quicedge.filters:Filter' }",
}
"""Settings by kind; `{}` for the others."""


def test_every_kind_can_be_checked_without_an_event_loop(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("gone")
    routes = [
        f"[[routes]]\npath = '/{kind}'\n"
        + ("" if kind in ("redirect", "respond") else "upstream = 'app'\n")
        + f"filters = [{{ {kind} = {SETTINGS.get(kind, '{}')} }}]\n"
        for kind in KINDS
    ]
    assert list(unusable_filters(config_of("".join(routes), tmp_path))) == []
