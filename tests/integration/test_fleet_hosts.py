"""Three hosts behind one address, with clients that move: drained, killed and upgraded, none lost.

`make soak ARGS=fleet` is the same with 300 clients.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.fleet import soak_fleet
from tests.support.peers import require_namespaces

pytestmark = pytest.mark.alone

CLIENTS, SECONDS = 18, 1.0


@pytest.mark.timeout(300)
def test_behind_kernel_ecmp_only_a_dead_host_loses_its_own_clients(tmp_path: Path) -> None:
    require_namespaces()
    report = soak_fleet(tmp_path, "ecmp", CLIENTS, SECONDS)
    assert report.wrong == []
    assert report.figures["datagrams forwarded"] > CLIENTS
    assert report.figures["answers relayed"] == 0, "hosts have the address: they answer directly"


@pytest.mark.timeout(300)
def test_behind_a_balancer_that_reads_server_ids_nothing_is_forwarded(tmp_path: Path) -> None:
    report = soak_fleet(tmp_path, "balancer", CLIENTS, SECONDS)
    assert report.wrong == []
    assert report.figures["datagrams forwarded"] == 0


@pytest.mark.timeout(300)
def test_behind_a_nat_answers_take_the_way_back_through_it(tmp_path: Path) -> None:
    """As pods behind a Service, which are rolled one by one."""
    report = soak_fleet(tmp_path, "nat", CLIENTS, SECONDS)
    assert report.wrong == []
    assert report.figures["datagrams forwarded"] > CLIENTS
    assert report.figures["answers relayed"] > CLIENTS
