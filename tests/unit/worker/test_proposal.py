"""A configuration that a worker prepares: it holds nothing once it is dropped."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from quicedge.config.filters import BasicAuth, FilterEntry
from quicedge.config.schema import Config, Qlog, Route, Tls, Upstream
from quicedge.config.unusable import UnusableError
from quicedge.proxy.filters.build_route import UnusableFilter
from quicedge.quic.settings import ALPN_H3
from quicedge.quic.tls import CertificateStore, load_certificate
from quicedge.upstream.unusable import UnusableUpstream
from quicedge.worker.proposal import Proposal
from tests.support.certs import write_certificate


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore([load_certificate(*write_certificate(tmp_path, "a.example"))])


def config(tls: Tls | None = None, qlog: Qlog | None = None, **roots: Path) -> Config:
    return Config(
        upstreams={name: Upstream(root=str(root)) for name, root in roots.items()},
        routes=[Route(upstream=name, path=f"/{name}") for name in roots],
        tls=tls or Tls(),
        qlog=qlog or Qlog(),
    )


def propose(wanted: Config, store: CertificateStore, **rest) -> Proposal:
    return Proposal(wanted, store, (ALPN_H3,), loop=asyncio.get_running_loop(), **rest)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_dropped_proposal_closes_what_it_opened(tmp_path: Path, store) -> None:
    before = descriptors()
    tls = Tls(keylog=str(tmp_path / "keys"))
    proposal = propose(config(tls, a=tmp_path, b=tmp_path), store)
    # Two directories, and the key log of QUIC and of TCP.
    assert descriptors() == before + 4
    proposal.drop()
    del proposal
    assert descriptors() == before


async def test_a_proposal_that_fails_closes_what_it_opened(tmp_path: Path, store) -> None:
    before = descriptors()
    with pytest.raises(UnusableError, match=r"^upstreams\.b\.root: .*/absent: No such file"):
        propose(config(a=tmp_path, b=tmp_path / "absent"), store)
    assert descriptors() == before


async def test_unchanged_upstreams_are_kept_and_survive_a_drop(tmp_path: Path, store) -> None:
    running = propose(config(a=tmp_path), store)
    (tmp_path / "page").write_text("here")
    second = propose(
        config(a=tmp_path, b=tmp_path), store, running=running.config, upstreams=running.upstreams
    )
    assert second.upstreams["a"] is running.upstreams["a"]
    second.drop()
    kept = running.upstreams["a"]
    os.close(kept.directory.open(b"/page").descriptor)
    running.drop()


@pytest.mark.parametrize(
    ("tls", "qlog", "words"),
    [
        (Tls(keylog="/nowhere/keys"), None, r"tls\.keylog: /nowhere/keys: No such file"),
        (None, Qlog(directory="/nowhere"), r"qlog\.directory: /nowhere: no such directory"),
    ],
)
async def test_files_out_of_reach_are_named_by_their_key(store, tls, qlog, words) -> None:
    with pytest.raises(UnusableError, match=words):
        propose(config(tls, qlog), store)


async def test_a_tolerant_proposal_replaces_only_what_is_out_of_reach(
    tmp_path: Path, store
) -> None:
    wanted = config(Tls(keylog="/nowhere/keys"), a=tmp_path, b=tmp_path / "absent")
    proposal = propose(wanted, store, tolerant=True)
    assert isinstance(proposal.upstreams["b"], UnusableUpstream)
    assert proposal.quic.secrets_log_file is None
    # Once the directory is there, a reload builds the upstream although nothing else changed.
    (tmp_path / "absent").mkdir()
    mended = propose(config(b=tmp_path / "absent"), store, upstreams=proposal.upstreams)
    assert not isinstance(mended.upstreams["b"], UnusableUpstream)
    for one in (proposal, mended):
        one.drop()


async def test_a_filter_that_cannot_be_built_fails_the_proposal_and_is_named(
    tmp_path: Path, store
) -> None:
    before = descriptors()
    auth = BasicAuth(htpasswd=str(tmp_path / "absent"))
    route = Route(upstream="a", filters=[FilterEntry(basic_auth=auth)])
    wanted = msgspec.structs.replace(config(a=tmp_path), routes=[route])
    key = r"^routes\[0\]\.filters\[0\]\.basic_auth\.htpasswd: .*/absent: No such file"
    with pytest.raises(UnusableError, match=key):
        propose(wanted, store)
    assert descriptors() == before
    proposal = propose(wanted, store, tolerant=True)
    (filters,) = proposal.route_filters.values()
    assert isinstance(filters[0], UnusableFilter), "nobody passes without a password"
    proposal.drop()
