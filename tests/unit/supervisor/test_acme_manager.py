"""The keeper of certificates by ACME, with an issuer and a front that obey the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from quicedge.acme.challenge import ChallengeKind, Challenges, Proof
from quicedge.acme.directory_storage import DirectoryStorage
from quicedge.acme.failure import Cause, Failure
from quicedge.acme.records import Records
from quicedge.acme.schedule import HostRecord
from quicedge.acme.storage import StorageError
from quicedge.acme.wire import Job, PlaceOrder, Prove, Suggested
from quicedge.config.schema import Acme, Config, Route, Tls
from quicedge.supervisor import acme as manager_module
from quicedge.supervisor.acme import AcmeManager
from quicedge.supervisor.acme_plan import AcmeError, Reach, plan
from quicedge.supervisor.challenge_board import ChallengeBoard
from quicedge.supervisor.issuer_process import IssuerError
from quicedge.worker.control import Settings
from tests.support.acme_issuer import issue, self_issued

REACH = Reach(http=True, tls=True)
HOST = "a.example.com"


class FakeFront:
    def __init__(self) -> None:
        self.challenges: list[Challenges] = []
        self.served = 0
        self.refused: list[str] = []
        self.error: str | None = None

    async def use_challenges(self, challenges: Challenges) -> str | None:
        self.challenges.append(challenges)
        return self.error

    async def use_certificates(self) -> None:
        self.served += 1

    def refuse_names(self, names: list[str]) -> None:
        self.refused += names


class FakeIssuer:
    """Stands for `IssuerProcess`; the class remembers what was asked of all of them."""

    jobs: list[Job]
    outcome: Callable[[], Failure | None]
    hang = False
    days = 90.0
    """For which it issues, from"""
    start = -2.0
    """days from now on."""
    adds = b""
    """What it adds to chains."""

    def __init__(self, *, prove: Any, registered: Any) -> None:
        self._prove = prove

    async def order(self, job: Job) -> bytes:
        task = job.task
        assert isinstance(task, PlaceOrder)
        FakeIssuer.jobs.append(job)
        if FakeIssuer.hang:
            await asyncio.Event().wait()
        proof = Proof(kind=task.kinds[0], name=task.name, token="token", key_authorization="k")
        error = await self._prove(Prove(proofs=[proof]))
        failure = FakeIssuer.outcome()
        if error is not None:
            failure = Failure(cause=Cause.INTERNAL, message=error)
        if failure is not None:
            raise IssuerError(failure)
        chain = issue(task.csr_pem.encode(), FakeIssuer.days, FakeIssuer.start)
        return chain + FakeIssuer.adds

    async def ask(self, job: Job) -> list[Suggested]:
        return []


def settings(*hosts: str, **keys: Any) -> Settings:
    acme = Acme(agree_to_terms=True, **keys)
    routes = [Route(upstream="app", host=host) for host in hosts]
    return Settings(config=Config(tls=Tls(acme=acme), routes=routes))


@pytest.fixture(autouse=True)
def issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeIssuer.jobs = []
    FakeIssuer.outcome = staticmethod(lambda: None)
    FakeIssuer.hang = False
    FakeIssuer.days, FakeIssuer.start, FakeIssuer.adds = 90.0, -2.0, b""
    monkeypatch.setattr(manager_module, "IssuerProcess", FakeIssuer)


@asynccontextmanager
async def managed(tmp_path: Path, given: Settings) -> AsyncIterator[tuple[AcmeManager, FakeFront]]:
    front = FakeFront()
    manager = AcmeManager(front, tmp_path, None)
    await manager.configure(given, REACH)
    running = asyncio.create_task(manager.run())
    try:
        yield manager, front
    finally:
        running.cancel()
        await manager.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_ordered_is_served_and_found_again(tmp_path: Path) -> None:
    async with managed(tmp_path, settings(HOST, "b.example.com")) as (manager, front):
        await until(lambda: len(manager.certificates()) == 2 and front.served >= 2)
        assert manager.challenges() == Challenges()
        assert front.challenges[-1] == Challenges(), "proofs are taken back"
        status = manager.status
        assert status is not None
        assert status.orders == {"issued": 2}
    async with managed(tmp_path, settings(HOST, "b.example.com")) as (manager, _):
        assert len(manager.certificates()) == 2
        await asyncio.sleep(0.2)
        assert len(FakeIssuer.jobs) == 2


async def test_the_key_of_a_certificate_never_reaches_the_issuers_process(tmp_path: Path) -> None:
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await until(manager.certificates)
        (pem,) = manager.certificates()
        (job,) = FakeIssuer.jobs
        assert pem.key.strip() not in str(job.task).encode()
        assert pem.key.strip() != job.account.key_pem.strip().encode()


async def test_the_storage_is_called_once_at_a_time_also_when_it_is_left_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, most = 0, 0
    unlock = DirectoryStorage.unlock

    def slow_unlock(storage: DirectoryStorage) -> None:
        nonlocal calls, most
        calls += 1
        most = max(most, calls)
        time.sleep(0.01)  # in the storage's thread
        unlock(storage)
        calls -= 1

    monkeypatch.setattr(DirectoryStorage, "unlock", slow_unlock)
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await until(manager.certificates)
    assert most == 1


@pytest.mark.parametrize(
    ("start", "days", "reason"), [(-91.0, 90.0, "has expired"), (30.0, 90.0, "is not valid yet")]
)
async def test_a_certificate_that_no_client_takes_takes_no_good_ones_place(
    tmp_path: Path, start: float, days: float, reason: str
) -> None:
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await until(manager.certificates)
        served = manager.certificates()
        FakeIssuer.start, FakeIssuer.days = start, days
        await manager.renew([HOST])
        await until(lambda: manager.status.hosts[0].error)  # type: ignore[union-attr]
        assert manager.certificates() == served
        assert manager.status is not None
        assert reason in (manager.status.hosts[0].error or "")
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        assert manager.certificates() == served


async def test_what_openssl_refuses_is_not_stored(tmp_path: Path) -> None:
    """Workers would refuse it, and with it every other certificate from then on."""
    weak = rsa.generate_private_key(65537, 1024)
    FakeIssuer.adds = self_issued(weak)
    async with managed(tmp_path, settings(HOST)) as (manager, front):
        await until(lambda: manager.status.hosts[0].error)  # type: ignore[union-attr]
        assert manager.status is not None
        assert f"OpenSSL refuses the certificate of {HOST}" in (manager.status.hosts[0].error or "")
        assert not manager.certificates()
        assert not front.served


async def test_a_renewal_by_hand_waits_for_the_end_of_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = asyncio.Event()

    async def use_slowly(self: FakeFront) -> None:
        await taken.wait()

    monkeypatch.setattr(FakeFront, "use_certificates", use_slowly)
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await until(manager.certificates)
        await manager.renew([HOST])
        manager._wake.set()
        await asyncio.sleep(0.2)
        assert len(FakeIssuer.jobs) == 1
        taken.set()
        await until(lambda: len(FakeIssuer.jobs) == 2 and not manager._orders)


async def test_what_is_taken_over_from_the_storage_undoes_no_renewal_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await until(lambda: manager.certificates() and not manager._orders)
        reading, go_on = threading.Event(), threading.Event()
        read = Records.host

        def read_slowly(records: Records, host: str) -> HostRecord:
            found = read(records, host)
            reading.set()
            assert go_on.wait(20)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(Records, "host", read_slowly)
            manager._versions[HOST] = "changed"
            syncing = asyncio.create_task(manager._sync())
            await until(reading.is_set)
            renewing = asyncio.create_task(manager.renew([HOST]))
            await asyncio.sleep(0.05)
            go_on.set()
            await syncing
            await renewing
        before = manager._schedule.due_at(HOST)
        assert len(FakeIssuer.jobs) == 2 or before <= time.time()


async def test_the_challenge_changes_after_a_failure(tmp_path: Path) -> None:
    FakeIssuer.outcome = staticmethod(lambda: Failure(cause=Cause.REJECTED, message="no"))
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        for n in (1, 2, 3):
            await until(lambda n=n: len(FakeIssuer.jobs) == n and not manager._orders)
            await manager.renew([HOST])
    tasks = [job.task for job in FakeIssuer.jobs[:3]]
    first = [task.kinds[0] for task in tasks if isinstance(task, PlaceOrder)]
    assert first == [ChallengeKind.HTTP_01, ChallengeKind.TLS_ALPN_01, ChallengeKind.HTTP_01]


async def test_a_worker_that_does_not_take_a_challenge_fails_the_order(tmp_path: Path) -> None:
    front = FakeFront()
    front.error = "worker 1 does not answer"
    manager = AcmeManager(front, tmp_path, None)
    await manager.configure(settings(HOST), REACH)
    running = asyncio.create_task(manager.run())
    await until(lambda: manager.status.hosts[0].error)  # type: ignore[union-attr]
    assert manager.status is not None
    assert manager.status.hosts[0].error == "worker 1 does not answer"
    running.cancel()
    await manager.close()


async def test_while_the_storage_cannot_be_read_what_is_known_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await until(manager.certificates)
        served = manager.certificates()

        def fail(*_: Any) -> Any:
            raise StorageError("redis://10.0.0.9: gone")

        for name in ("read", "versions", "lock", "write"):
            with monkeypatch.context() as broken:
                broken.setattr(DirectoryStorage, name, fail)
                manager._versions[HOST] = "changed"
                await manager._sync()
                assert manager.certificates() == served
                assert manager.status is not None
        monkeypatch.setattr(DirectoryStorage, "versions", fail)
        await manager._sync()
        assert manager.status is not None
        assert manager.status.storage_error == "redis://10.0.0.9: gone"
        monkeypatch.undo()
        await manager._sync()
        assert manager.status.storage_error is None


async def test_nothing_is_ordered_while_the_storage_is_unusable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StorageError("gone")

    for name in ("read", "versions", "lock", "write"):
        monkeypatch.setattr(DirectoryStorage, name, fail)
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await asyncio.sleep(0.3)
        assert FakeIssuer.jobs == []
        assert manager.status is not None
        assert manager.status.storage_error == "gone"


async def test_nothing_is_ordered_that_could_not_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: DirectoryStorage, name: str, value: bytes) -> None:
        raise StorageError(f"{name}: No space left on device")

    async with managed(tmp_path, settings("b.example.com")) as (manager, _):
        await until(manager.certificates)  # there is an account
    FakeIssuer.jobs.clear()
    with monkeypatch.context() as patched:
        patched.setattr(DirectoryStorage, "write", full)
        async with managed(tmp_path, settings(HOST)) as (manager, _):
            await until(lambda: manager.status.orders)
            assert FakeIssuer.jobs == []
            (host,) = manager.status.hosts
            assert "No space left" in host.error
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        await until(manager.certificates)
    assert sorted(path.name for path in (tmp_path / "acme").iterdir() if path.is_file()) == ["lock"]


async def test_orders_in_progress_are_bounded_and_given_up_at_the_end(tmp_path: Path) -> None:
    FakeIssuer.hang = True
    hosts = [f"{n}.example.com" for n in range(10)]
    async with managed(tmp_path, settings(*hosts)) as (manager, _):
        await until(lambda: len(FakeIssuer.jobs) == 4)
        await asyncio.sleep(0.2)
        assert len(FakeIssuer.jobs) == 4
        other = DirectoryStorage(tmp_path / "acme")
        assert not other.lock()
    assert not manager._orders
    assert other.lock(), "the lock is free for the next"
    other.close()


async def test_a_host_that_is_no_longer_configured_is_no_longer_served(tmp_path: Path) -> None:
    async with managed(tmp_path, settings(HOST, "b.example.com")) as (manager, _):
        await until(lambda: len(manager.certificates()) == 2)
        await manager.configure(settings(HOST), REACH)
        assert [pem.cert_file for pem in manager.certificates()] == [f"acme:{HOST}"]
        await manager.configure(Settings(config=Config()), REACH)
        assert manager.certificates() == []
        assert manager.status is None
        await manager.configure(settings(HOST, "b.example.com"), REACH)
        assert len(manager.certificates()) == 2
        await asyncio.sleep(0.1)
    assert len(FakeIssuer.jobs) == 2, "what is stored is not ordered again"


async def test_a_name_on_demand_that_fails_is_forgotten_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quicedge.config.schema import OnDemand
    from quicedge.supervisor import on_demand

    monkeypatch.setattr(on_demand, "ask", lambda url, name: True)
    FakeIssuer.outcome = staticmethod(lambda: Failure(cause=Cause.REJECTED, message="no"))
    given = settings("*", on_demand=OnDemand(ask="http://x/"))
    async with managed(tmp_path, given) as (manager, front):
        manager.names_missing([HOST, "localhost"])
        await until(lambda: HOST in front.refused)
        assert front.refused == ["localhost", HOST]
        assert manager.status is not None
        assert manager.status.hosts == []
        manager.names_missing([HOST])
        await asyncio.sleep(0.1)
        assert len(FakeIssuer.jobs) == 1


async def test_only_names_that_are_managed_are_renewed_by_hand(tmp_path: Path) -> None:
    async with managed(tmp_path, settings(HOST)) as (manager, _):
        with pytest.raises(AcmeError, match=r"x\.example\.com"):
            await manager.renew(["x.example.com"])


def test_a_plan_that_cannot_work_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AcmeError, match="state_directory"):
        plan(settings(HOST), None, REACH)
    with pytest.raises(AcmeError, match="port 80 is not served"):
        plan(settings(HOST), tmp_path, Reach(http=False, tls=False))
    assert plan(settings(HOST), tmp_path, Reach(http=False, tls=True)) is not None
    for hosts in ((), ("localhost",), ("app.internal", "printer")):
        with pytest.raises(AcmeError, match="no host that a public issuer may"):
            plan(settings(*hosts), tmp_path, REACH)
    own = settings("app.internal", directory="https://ca.internal/acme")
    assert plan(own, tmp_path, REACH) is not None
    broken = settings(HOST, eab_key_id="k", eab_hmac_key_file=str(tmp_path / "none"))
    with pytest.raises(AcmeError, match="eab_hmac_key_file"):
        plan(broken, tmp_path, REACH)


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("b.example.com", "token"),
        (f"{HOST}\n", "token"),
        (HOST, "../../etc"),
        (HOST, "a\r\nb: c"),
        (HOST, ""),
    ],
)
async def test_an_issuer_cannot_choose_what_is_proved(name: str, token: str) -> None:
    told: list[Challenges] = []

    async def tell(challenges: Challenges) -> str | None:
        told.append(challenges)
        return None

    board = ChallengeBoard(tell)
    good = Proof(kind=ChallengeKind.HTTP_01, name=HOST, token="token", key_authorization="k")
    bad = msgspec.structs.replace(good, name=name, token=token)
    assert await board.prove(HOST, Prove(proofs=[good, bad])) is not None
    assert (told, board.answers()) == ([], Challenges())
    assert await board.prove(f"*.{HOST}", Prove(proofs=[good])) is None
