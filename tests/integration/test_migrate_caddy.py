"""Caddyfiles, migrated: Caddy and quicedge side by side show no difference that the report did not
announce."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.migrate.caddy.translate import translate_caddyfile
from quicedge.migrate.verify.caddy_original import CaddyOriginal
from quicedge.migrate.verify.run import verify
from tests.support.proof import assert_proven

CADDYFILES = Path(__file__).resolve().parents[1] / "support" / "caddy"

LEAST_SAME = {
    "site.caddyfile": 0.5,
    "matchers.caddyfile": 0.35,
    "domains.caddyfile": 0.35,
    "files.caddyfile": 0.3,
    "applications.caddyfile": 0.03,
    "django.caddyfile": 0.3,
    "moved_apps.caddyfile": 0.1,
}
"""Share of the requests without any difference, even an announced one."""


@pytest.mark.parametrize("name", LEAST_SAME)
def test_a_caddyfile_is_migrated_without_an_unannounced_difference(name):
    path = CADDYFILES / name
    assert_proven(path, translate_caddyfile(path), CaddyOriginal, LEAST_SAME[name])


def test_a_route_that_is_missing_is_found():
    path = CADDYFILES / "matchers.caddyfile"
    translation = translate_caddyfile(path)
    routes = translation.document.routes
    routes[:] = [route for route in routes if route.keys.get("path_exact") != "/health"]
    verdict = verify(path, translation, CaddyOriginal)
    assert "client: status: 204 -> 200" in verdict.render()
    assert not verdict.is_proven
