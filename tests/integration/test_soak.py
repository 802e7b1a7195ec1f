"""The soak of `make soak`, small: what leaks or breaks in twenty seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import attacks, soak
from bench.upgrades import run_upgrades
from tests.support.edge import edge
from tests.support.origin import demo_origin

pytestmark = pytest.mark.alone


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("loss", "rebind"), [(0.01, 1000), (0.0, 2)], ids=["loss", "rebinding"])
def test_churn_on_a_bad_way_costs_no_byte_and_leaks_nothing(
    tmp_path: Path, loss: float, rebind: float
) -> None:
    verdict = soak.Verdict()
    with (
        demo_origin() as origin,
        # Clients whose goodbye is lost are waited for, and so are connections to the origin.
        edge(
            tmp_path,
            origin,
            extra='[quic]\nidle_timeout = "15s"',
            upstream_extra='keepalive_timeout = "2s"',
        ) as running,
    ):
        soak.soak(
            running, verdict, 10, idle=40, active=15, interval=0.3, loss=loss, rebind=rebind, ping=3
        )
    assert not verdict.wrong
    assert verdict.figures["active: small"] > 100
    lost, rebindings = map(int, verdict.figures["datagrams lost, rebindings"].split(", "))
    assert lost > 0 if loss else rebindings > 10


@pytest.mark.timeout(240)
def test_a_reload_an_upgrade_and_a_death_of_the_supervisor_lose_no_exchange(
    tmp_path: Path,
) -> None:
    """Clients of every kind, on a path that loses packets and rebinds ports."""
    steps = ("reload", "upgrade", "kill supervisor")
    verdict = run_upgrades(tmp_path, 24, steps, doomed=20, upgrade_drain=8.0)
    assert not verdict.wrong


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", soak.FLOODS)
def test_honest_clients_are_served_during_a_flood(tmp_path: Path, kind: str) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        before = soak.held(running)
        with soak.program("bench.floods", kind, running.port, soak.FLOODS[kind]) as flood:
            during = soak.honest(running, 3)
            flooded = soak.held(running)
            sent = flood.finish()["sent"]
    assert sent > soak.FLOODS[kind] / 2
    assert not during["failed"]
    assert during["small"] > 30
    # How slow is `make soak`'s to say: other tests share the machine.
    assert during["p99"] < 2
    assert flooded.resident - before.resident < 48 << 20


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", attacks.ALL_KINDS)
def test_honest_clients_are_served_beside_one_that_takes_all_it_can(
    tmp_path: Path, kind: str
) -> None:
    extra = attacks.configuration(tmp_path)
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        before = attacks.usage(running)
        with soak.program("bench.attackers", kind, running.port) as attacker:
            during = soak.honest(running, 4)
            end = attacks.usage(running)
            sent = attacker.finish()["sent"]
        assert sent > 10_000
        assert not during["failed"]
        assert during["small"] > 5
        # How slow, and at what cost per byte, is `make soak`'s to say.
        assert during["p99"] < 3
        assert end.resident - before.resident < attacks.MEMORY_MOST
