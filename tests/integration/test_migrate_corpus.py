"""Configurations of nginx as its documentation has them and as people write them: each is migrated,
and `--verify` shows no difference that the report did not announce."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.migrate.nginx.translation import translate
from quicedge.migrate.verify.nginx_original import NginxOriginal
from tests.support.peers import require
from tests.support.proof import assert_proven

CORPUS = Path(__file__).resolve().parents[1] / "support" / "nginx"

LEAST_SAME = {
    "documentation/access.conf": 0.5,
    "documentation/balancing.conf": 0.9,
    "documentation/locations.conf": 0.0,
    "documentation/maps.conf": 0.9,
    "documentation/proxy_pass.conf": 0.8,
    "documentation/rewrites.conf": 0.8,
    "documentation/servers.conf": 0.1,
    "documentation/static.conf": 0.0,
    "people/ab_split.conf": 0.4,
    "people/auth_request.conf": 0.6,
    "people/client_certificates.conf": 0.6,
    "people/django.conf": 0.4,
    "people/domains.conf": 0.7,
    "people/grafana.conf": 0.9,
    "people/grpc.conf": 0.9,
    "people/moved_apps.conf": 0.6,
    "people/rate_limits.conf": 0.9,
    "people/spa.conf": 0.25,
    "people/websockets.conf": 0.9,
    "people/wordpress.conf": 0.2,
}
"""Share of the requests without any difference, even an announced one: an edge that is left out
everywhere would be proven as well."""


@pytest.mark.parametrize("name", LEAST_SAME)
def test_a_configuration_is_migrated_without_an_unannounced_difference(name):
    require("nginx")
    path = CORPUS / name
    assert_proven(path, translate(path), NginxOriginal, LEAST_SAME[name])


def test_the_corpus_is_played_as_a_whole():
    found = {str(path.relative_to(CORPUS)) for path in CORPUS.rglob("*.conf")}
    assert found == set(LEAST_SAME)
