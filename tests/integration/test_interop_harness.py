"""The interop harness believes nobody: broken endpoints fail their case, whole ones pass it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.runner import topology
from interop.runner.cases import BY_NAME, Case
from interop.runner.implementations import PEERS, Implementation, find
from interop.runner.trial import Outcome, Pair, Result, Site, run_trial
from tests.support.peers import require, require_namespaces

pytestmark = pytest.mark.timeout(180)

AIOQUIC = find("aioquic")
# A shorter transfer with an earlier rebinding shows the same as the runner's.
REBIND = dataclasses.replace(
    BY_NAME["rebind-port"],
    files=(2 << 20,),
    scenario=BY_NAME["rebind-port"].scenario.replace("first-rebind=1s", "first-rebind=700ms"),
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    require_namespaces()
    with topology.topology() as names:
        yield Site(names)


def gtls() -> Implementation:
    require("gtlsclient")
    return find("gtls")


def broken(name: str) -> Implementation:
    command = (sys.executable, str(PEERS / f"broken_{name}.py"))
    return dataclasses.replace(AIOQUIC, name=name, server=command, client=command)


def run(
    site: Site, case: Case, client: Implementation, server: Implementation, at: Path
) -> Outcome:
    return run_trial(site, case, Pair(client, server), at / "trial")


def assert_passes(outcome: Outcome) -> None:
    assert outcome.result is Result.SUCCEEDED, outcome.reason


def assert_fails(outcome: Outcome, says: str) -> None:
    assert outcome.result is Result.FAILED
    assert says in outcome.reason


@pytest.mark.parametrize("case", ["handshake", "http3", "retry", "resumption", "zerortt"])
def test_stock_aioquic_serves_ngtcp2(site: Site, case: str, tmp_path: Path) -> None:
    assert_passes(run(site, BY_NAME[case], gtls(), AIOQUIC, tmp_path))


@pytest.mark.parametrize("case", ["longrtt", "chacha20", "multiplexing", "ipv6", "transferloss"])
def test_ngtcp2_serves_stock_aioquic(site: Site, case: str, tmp_path: Path) -> None:
    assert_passes(run(site, BY_NAME[case], AIOQUIC, gtls(), tmp_path))


def test_ngtcp2_marks_ecn_and_aioquic_does_not(site: Site, tmp_path: Path) -> None:
    assert_passes(run(site, BY_NAME["ecn"], gtls(), gtls(), tmp_path))
    peer = dataclasses.replace(AIOQUIC, env={**AIOQUIC.env, "ALSO": "ecn"})
    assert_fails(run(site, BY_NAME["ecn"], gtls(), peer, tmp_path), "ECN counts")


def test_keys_updated_by_ngtcp2(site: Site, tmp_path: Path) -> None:
    assert_passes(run(site, BY_NAME["keyupdate"], gtls(), AIOQUIC, tmp_path))


def test_version_2_between_aioquics(site: Site, tmp_path: Path) -> None:
    assert_passes(run(site, BY_NAME["v2"], AIOQUIC, AIOQUIC, tmp_path))


def test_rebinding_and_a_server_that_does_not_challenge(site: Site, tmp_path: Path) -> None:
    assert_passes(run(site, REBIND, gtls(), AIOQUIC, tmp_path / "whole"))
    outcome = run(site, REBIND, gtls(), broken("no_challenge"), tmp_path / "broken")
    assert_fails(outcome, "no PATH_CHALLENGE in the server's first packet")


def test_amplification(site: Site, tmp_path: Path) -> None:
    case = BY_NAME["amplificationlimit"]
    assert_passes(run(site, case, AIOQUIC, AIOQUIC, tmp_path / "whole"))
    assert_fails(
        run(site, case, AIOQUIC, broken("amplification"), tmp_path / "broken"),
        "times what it received",
    )


def test_a_wrong_byte(site: Site, tmp_path: Path) -> None:
    outcome = run(site, BY_NAME["handshake"], AIOQUIC, broken("wrong_byte"), tmp_path)
    assert_fails(outcome, "other content")


def test_an_extra_file(site: Site, tmp_path: Path) -> None:
    outcome = run(site, BY_NAME["handshake"], broken("extra_file"), AIOQUIC, tmp_path)
    assert_fails(outcome, "1 files too many: extra")


def test_no_retry(site: Site, tmp_path: Path) -> None:
    outcome = run(site, BY_NAME["retry"], AIOQUIC, broken("no_retry"), tmp_path)
    assert_fails(outcome, "no Retry")


def test_two_source_connection_ids(site: Site, tmp_path: Path) -> None:
    outcome = run(site, BY_NAME["handshake"], AIOQUIC, broken("two_scids"), tmp_path)
    assert_fails(outcome, "2 handshakes in place of 1")


def test_an_endpoint_finds_the_places_of_its_container(site: Site, tmp_path: Path) -> None:
    """/www and /certs cannot be written to, the servers have names, the helpers are there."""
    script = (
        'if [ "$ROLE" = server ]; then sleep 60; fi\n'
        "touch /www/x 2>/dev/null && exit 3\n"
        "touch /certs/x 2>/dev/null && exit 4\n"
        "touch /downloads/x /logs/x || exit 5\n"
        "getent hosts server4 >/dev/null && getent hosts server6 >/dev/null || exit 6\n"
        "/setup.sh && /wait-for-it.sh sim:57832 -s -t 30 || exit 7\n"
        "[ $$ -eq 1 ] || exit 8\n"
        "grep -q . /certs/ca.pem || exit 9\n"
        "exit 42\n"
    )
    for name in ("certs", "www"):
        (tmp_path / name).mkdir()
    (tmp_path / "certs" / "ca.pem").write_text("x")
    shell = Implementation("sh", None, ("bash", "-c", script))
    endpoint = site.start(shell, "client", tmp_path, {"TESTCASE": "handshake"})
    try:
        from interop.runner.endpoint import wait_any

        assert wait_any([endpoint], 20) is endpoint
        assert endpoint.returncode == 42, (tmp_path / "output.txt").read_text()
    finally:
        endpoint.stop()


def test_namespaces_of_a_dead_run_are_removed(site: Site) -> None:
    with subprocess.Popen(["true"]) as dead:
        name = f"{topology.PREFIX}-{dead.pid}-client"
    topology.run_ip("netns", "add", name)
    assert name in topology.remove_stale()
    listed = topology.run_ip("netns", "list")
    assert name not in listed
    assert site.names is not None
    assert site.names.client in listed
