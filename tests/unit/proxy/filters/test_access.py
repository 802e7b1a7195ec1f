"""Who may pass: by address."""

from __future__ import annotations

from quicedge.telemetry.outcomes import Outcome
from tests.support.client_info import StubClient
from tests.support.filtered import World

ROUTE = "[[routes]]\nupstream = 'app'\nfilters = [{ access = %s }]"


async def test_only_listed_networks_pass() -> None:
    here = World(ROUTE % "{ allow = ['192.0.2.0/24'], deny = ['192.0.2.9'] }")
    assert here.send().status == 0
    denied = here.send(client=StubClient(address=("192.0.2.9", 1)))
    assert (denied.status, denied.body) == (403, b"403 Forbidden\n")
    assert here.send(client=StubClient(address=("198.51.100.1", 1))).status == 403
    assert here.log.records[0].outcome is Outcome.DENIED
    assert len(here.origin.requests) == 1


async def test_requests_wait_for_an_address_that_a_filter_judges_by() -> None:
    assert World(ROUTE % "{ deny = ['192.0.2.9'] }").policy.needs_address
    assert not World("[[routes]]\nupstream = 'app'").policy.needs_address
