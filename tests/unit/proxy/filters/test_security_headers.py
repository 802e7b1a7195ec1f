"""The preset of security headers."""

from __future__ import annotations

from tests.support.filtered import World


def world(settings: str) -> World:
    return World(f"[[routes]]\nupstream = 'app'\nfilters = [{{ security_headers = {settings} }}]")


async def test_the_preset_is_added_to_what_a_response_does_not_say_itself() -> None:
    here = world("{}")
    client = here.send()
    here.origin.respond(200, {b"x-frame-options": b"DENY"}, b"x")
    assert client.value(b"x-frame-options") == b"DENY"
    assert client.value(b"x-content-type-options") == b"nosniff"
    assert client.value(b"strict-transport-security") == b"max-age=31536000"
    assert client.value(b"referrer-policy") == b"strict-origin-when-cross-origin"
    assert client.value(b"cross-origin-opener-policy") == b"same-origin"
    assert client.value(b"content-security-policy") is None


async def test_each_field_can_be_chosen() -> None:
    here = world(
        "{ hsts_max_age = '730d', hsts_subdomains = true, hsts_preload = true, frame = 'deny', "
        "content_security_policy = \"default-src 'self'\", permissions_policy = 'camera=()' }"
    )
    client = here.send()
    here.origin.respond()
    hsts = b"max-age=63072000; includeSubDomains; preload"
    assert client.value(b"strict-transport-security") == hsts
    assert client.value(b"x-frame-options") == b"DENY"
    assert client.value(b"content-security-policy") == b"default-src 'self'"
    assert client.value(b"permissions-policy") == b"camera=()"
    off = world("{ hsts_max_age = 0, frame = 'allow' }")
    client = off.send()
    off.origin.respond()
    assert client.value(b"strict-transport-security") is None
    assert client.value(b"x-frame-options") is None
