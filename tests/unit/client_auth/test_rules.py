"""Which rule a host has, and what becomes of connections when rules change."""

from __future__ import annotations

import pytest
import structlog

from quicedge.client_auth.certificate import ClientCertificate
from quicedge.client_auth.journal import Journal
from quicedge.client_auth.material import ClientAuthError, ClientAuthPem, read_client_auth
from quicedge.client_auth.rules import ClientAuth, Identity
from quicedge.client_auth.verdict import RefusedError, Verdict
from quicedge.config.limits import CLIENT_REFUSALS_LOGGED
from quicedge.config.schema import ClientAuth as Entry
from quicedge.config.schema import ClientAuthMode, Tls
from quicedge.telemetry.metrics import TlsMetrics
from quicedge.telemetry.protocols import TransportKind
from tests.support.clientpki import authority, client, revocation_list

ROOT, OTHER = authority("root"), authority("other")
ALICE = client("alice", ROOT)


def entry(*hosts: str, ca: bytes = ROOT.pem, crl: bytes = b"", mode: str = "require"):
    return ClientAuthPem(hosts=[*hosts], mode=ClientAuthMode(mode), ca=ca, crl=crl)


def met(auth: ClientAuth, name: str, *, by: ClientCertificate | None = None) -> Identity:
    rule = auth.rule_for(name)
    assert rule is not None
    return Identity(rule, name, by)


def alice() -> ClientCertificate:
    return ClientCertificate([*ALICE.chain, *ROOT.chain])


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("a.example", 0), ("A.Example.", 0), ("b.example", 1), ("x.b.example", 1),
        ("x.y.b.example", 1), ("b.b.example", 2), ("other", 3), (None, 3), ("127.0.0.1", 3),
    ],
)  # fmt: skip
def test_the_nearest_name_counts(host: str | None, found: int) -> None:
    auth = ClientAuth(
        [entry("a.example"), entry("b.example", "*.b.example"), entry("b.b.example"), entry("*")]
    )
    assert auth.rule_for(host) is auth.rules[found]


def test_a_connection_may_ask_for_hosts_with_the_rule_that_it_met() -> None:
    auth = ClientAuth([entry("a.example", "b.example"), entry("c.example")])
    identity = met(auth, "a.example", by=alice())
    assert auth.admits(identity, "a.example")
    assert auth.admits(identity, "b.example")
    assert not auth.admits(identity, "c.example")  # another entry, though its authority is the same
    assert not auth.admits(identity, "open.example")
    assert auth.admits(None, "open.example")
    assert not auth.admits(None, "a.example")


def test_rules_that_have_not_changed_are_kept_by_a_reload() -> None:
    old = ClientAuth([entry("a.example"), entry("b.example")])
    new = ClientAuth([entry("b.example"), entry("a.example", ca=OTHER.pem)], old)
    assert new.rules[0] is old.rules[1]
    assert new.rules[1] is not old.rules[0]


@pytest.mark.parametrize(
    ("new", "with_certificate", "without"),
    [
        (entry("a.example", ca=ROOT.pem + OTHER.pem, mode="request"), True, True),
        (entry("a.example", ca=OTHER.pem, mode="request"), False, True),
        (entry("a.example", crl=revocation_list(ROOT), mode="request"), True, True),
        (entry("a.example", crl=revocation_list(ROOT, ALICE), mode="request"), False, True),
        (entry("a.example"), True, False),
        (entry("b.example"), True, True),
    ],
    ids=["another authority too", "another alone", "a list", "revoked", "required", "no rule"],
)
def test_connections_are_judged_by_the_rules_of_today(
    new: ClientAuthPem, with_certificate: bool, without: bool
) -> None:
    before = ClientAuth([entry("a.example", mode="request")])
    known, unknown = met(before, "a.example", by=alice()), met(before, "a.example")
    after = ClientAuth([new], before)
    for identity, expected in ((known, with_certificate), (unknown, without)):
        assert before.admits(identity, "a.example")
        assert after.admits(identity, "a.example") is expected
        assert after.review(identity) is expected


def test_refusals_are_counted_and_a_few_logged() -> None:
    metrics = {kind: TlsMetrics() for kind in TransportKind}
    journal = Journal(metrics, clock=lambda: 100.0)
    refused = RefusedError(Verdict.REVOKED, "certificate revoked", "CN=alice")
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            journal.refused(
                TransportKind.TCP, refused, client="192.0.2.1:4", server_name="a.example"
            )
    assert metrics[TransportKind.TCP].client_certificates == {"revoked": 1000}
    assert len(lines) == CLIENT_REFUSALS_LOGGED
    assert lines[0]["subject"] == "CN=alice"


@pytest.mark.parametrize(
    ("ca", "crl", "words"),
    [
        (b"nothing", None, r"client_ca: .*ca.pem: holds no PEM certificate"),
        (ALICE.pem, None, r"CN=alice,O=Example is no certificate authority"),
        (ROOT.pem[:-80] + b"-----END CERTIFICATE-----\n", None, r"client_ca: .*ca.pem: "),
        (ROOT.pem, b"nothing", r"\[0\].crl: .*list.pem: holds no PEM revocation list"),
        (ROOT.pem, revocation_list(OTHER), r"no revocation list of CN=root,O=Example"),
        (None, None, r"client_ca: .*ca.pem: No such file"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, ca, crl, words: str) -> None:
    if ca is not None:
        (tmp_path / "ca.pem").write_bytes(ca)
    lists = []
    if crl is not None:
        (tmp_path / "list.pem").write_bytes(crl)
        lists = [str(tmp_path / "list.pem")]
    tls = Tls(client_auth=[Entry(client_ca=str(tmp_path / "ca.pem"), crl=lists)])
    with pytest.raises(ClientAuthError, match=words):
        read_client_auth(tls)
