"""Certificates by ACME: keeps those of a configuration valid, and shares them with a fleet.

`acme.schedule` decides what to order and when; this module does it: it reads and writes the
storage, runs a process per order (`issuer_process`), has the workers answer challenges, and tells
the supervisor when certificates have changed. What fails is logged, shown in the status and tried
again as the schedule says; certificates that exist are served meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import quicedge
from quicedge.acme.certificate_id import certificate_id
from quicedge.acme.challenge import Challenges
from quicedge.acme.failure import Cause, Failure
from quicedge.acme.issuers import Issuer
from quicedge.acme.lifetime import Lifetime
from quicedge.acme.names import on_demand_problem
from quicedge.acme.records import Records
from quicedge.acme.schedule import HostRecord, Order, Schedule
from quicedge.acme.status import AcmeStatus, HostStatus, IssuerStatus
from quicedge.acme.storage import StorageError
from quicedge.acme.wire import Account, AskRenewal, Job, PlaceOrder, Prove, Suggested, User
from quicedge.config.acmelimits import (
    BACKOFF_MIN,
    CHALLENGE_SYNC_INTERVAL,
    HOSTS_MAX,
    LOCK_RENEWAL,
    NOT_YET_VALID_MAX,
    ORDERS_AT_ONCE,
    QUESTIONS_AT_ONCE,
    SYNC_INTERVAL,
)
from quicedge.config.schema import Acme
from quicedge.quic.tls import CertificateError, CertificatePem, parse_certificate, validity
from quicedge.supervisor.acme_plan import AcmeError, Plan, Reach, plan
from quicedge.supervisor.challenge_board import ChallengeBoard
from quicedge.supervisor.issuer_process import IssuerError, IssuerProcess
from quicedge.supervisor.on_demand import OnDemand
from quicedge.worker.control import Settings
from quicedge.worker.privileges import Identity

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Front(Protocol):
    """What the supervisor does for ACME."""

    async def use_challenges(self, challenges: Challenges) -> str | None:
        """Have all workers answer these; returns why one does not."""

    async def use_certificates(self) -> None:
        """Serve what `AcmeManager.certificates` returns from now on."""

    def refuse_names(self, names: list[str]) -> None:
        """Tell all workers that these names get no certificate on demand."""


class AcmeManager:
    """All certificates by ACME of one supervisor. Call `configure` before `run`, and `close`."""

    def __init__(
        self,
        front: Front,
        state: Path | None,
        identity: Identity | None,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`clock`: the wall clock, which certificates and stored times are in."""
        self._front = front
        self._state = state
        self._user: User | None = None
        if identity is not None:
            self._user = User(identity.uid, identity.gid, identity.groups)
        self._clock = clock
        self._schedule = Schedule([], chance, clock())
        self._plan: Plan | None = None
        self._records: Records
        self._certificates: dict[str, CertificatePem] = {}
        self._versions: dict[str, Hashable] = {}
        self._challenges = ChallengeBoard(front.use_challenges)
        self._storage_thread = ThreadPoolExecutor(1, "certificate-storage")
        self._orders: dict[str, asyncio.Task[None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._account_lock = asyncio.Lock()
        self._changing = asyncio.Lock()
        """Held from a change of the schedule until it is stored, and while what is stored is taken
        over: that must not undo the change."""
        self._wake = asyncio.Event()
        self._locked_out_until = 0.0
        self._storage_error: str | None = None
        self._storage_failures = 0
        self._counts: Counter[str] = Counter()
        self._on_demand = OnDemand(self._allowed, lambda name: front.refuse_names([name]))

    # --- configuration ----------------------------------------------------------------------------

    async def configure(self, settings: Settings, reach: Reach) -> None:
        """Follow settings from now on, and serve what their storage holds; raises AcmeError."""
        new, before = plan(settings, self._state, reach), self._plan
        self._on_demand.configure(None if new is None else new.acme.on_demand)
        if before is not None and (new is None or before.storage_name != new.storage_name):
            await self._leave(before)
        self._plan = new
        if new is None:
            return
        if before is None or before.storage_name != new.storage_name:
            self._records = Records(new.open_storage())
        self._challenges.use(self._records if new.is_shared else None, new.acme.dns_command)
        self._schedule.use_issuers(list(new.issuers), self._clock())
        on_demand = new.acme.on_demand is not None
        for host in [host for host in self._schedule.hosts() if host not in new.hosts]:
            if not (on_demand and self._schedule.record(host).on_demand):
                self._forget(host)
        await self._sync()
        # Workers that start now answer for orders that other hosts have begun.
        await self._sync_challenges()
        self._wake.set()

    def certificates(self) -> list[CertificatePem]:
        """Those to serve."""
        return list(self._certificates.values())

    def _forget(self, host: str) -> None:
        self._schedule.forget(host)
        self._certificates.pop(host, None)
        self._versions.pop(host, None)

    async def close(self) -> None:
        """Give up orders in progress, and the lock; place no more."""
        self._on_demand.close()
        plan, self._plan = self._plan, None
        if plan is not None:
            await self._leave(plan)

    async def _leave(self, plan: Plan) -> None:
        """Give up the orders and the storage of a plan."""
        tasks = [*self._orders.values(), *([self._asking] if self._asking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for host in list(self._schedule.hosts()):
            self._forget(host)
        self._challenges.use(None, [])
        log.debug("certificate storage closed", storage=plan.storage_title)
        await self._stored(self._records.storage.close)

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Order and renew until cancelled."""
        watching = asyncio.create_task(self._watch_challenges())
        try:
            while True:
                self._wake.clear()
                try:
                    await self._turn()
                except Exception:
                    log.exception("certificates: unexpected error")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._pause())
        finally:
            watching.cancel()

    async def _turn(self) -> None:
        if self._plan is None:
            return
        if await self._sync():
            await self._front.use_certificates()
        await self._order()
        self._ask()

    def _pause(self) -> float | None:
        """Seconds until there is something to do by itself."""
        if self._plan is None:
            return None
        now = self._clock()
        due = self._schedule.next_at(now)
        if due is None or len(self._orders) >= ORDERS_AT_ONCE:
            return SYNC_INTERVAL
        return min(max(due - now, self._locked_out_until - now, 0.05), SYNC_INTERVAL)

    async def _stored(self, call: Callable[[], T]) -> T:
        """Call the storage, which may block, in its thread: one call after the other, also behind
        one whose caller was cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._storage_thread, call)

    async def _sync(self) -> bool:
        """Take over what changed in the storage; returns whether certificates did."""
        async with self._changing:
            plan = self._plan
            if plan is None:
                return False
            failures = self._storage_failures
            try:
                versions = await self._stored(self._records.versions)
            except StorageError as error:
                self._storage_failed(error)
                versions = None
            changed = False
            for host in [*plan.hosts, *self._stored_on_demand(versions)]:
                version = None if versions is None else versions.get(host)
                is_known = host in self._schedule
                if is_known and (
                    versions is None
                    or version == self._versions.get(host)
                    or self._schedule.is_ordered(host)
                ):
                    continue
                changed |= await self._load(host, version)
            if failures == self._storage_failures:
                self._storage_error = None
            return changed

    def _stored_on_demand(self, versions: Mapping[str, Hashable] | None) -> list[str]:
        """Names beyond the configured ones that a client asked for before, here or elsewhere."""
        plan = self._plan
        if versions is None or plan is None or plan.acme.on_demand is None:
            return []
        configured = set(plan.hosts)
        found = [
            host
            for host in versions
            if host not in configured and on_demand_problem(plan.config, host) is None
        ]
        return found[: HOSTS_MAX - len(configured)]

    async def _load(self, host: str, version: Hashable) -> bool:
        """Take over what is stored of a name; returns whether its certificate changed."""
        record, pem = HostRecord(), None
        if version is not None:
            try:
                record = await self._stored(partial(self._records.host, host))
                pem = await self._stored(partial(self._records.certificate, host))
            except StorageError as error:
                self._storage_failed(error)
                if host in self._schedule:
                    return False  # what is known is served on
        plan = self._plan  # it may have changed meanwhile
        if plan is None:
            return False
        record.on_demand = host not in plan.hosts
        if record.on_demand:
            if plan.acme.on_demand is None:
                return False
            if pem is None and host not in self._schedule:
                return False  # an order that failed
        before = self._certificates.get(host)
        if pem is None:
            self._certificates.pop(host, None)
        else:
            self._certificates[host] = pem
        self._versions[host] = version
        self._schedule.manage(host, record, None if pem is None else _lifetime(pem))
        return pem != before

    def _storage_failed(self, error: StorageError) -> None:
        self._storage_failures += 1
        if self._storage_error != str(error):
            log.error("certificate storage unusable", error=str(error))
        self._storage_error = str(error)

    # --- orders -----------------------------------------------------------------------------------

    async def _order(self) -> None:
        """Place the orders that are due, if no other host of the fleet is ordering."""
        now = self._clock()
        due = self._schedule.next_at(now)
        if due is None or due > now or now < self._locked_out_until:
            return
        storage = self._records.storage
        try:
            if not self._orders and not await self._stored(storage.lock):
                self._locked_out_until = now + SYNC_INTERVAL
                return
            # Another host may have ordered them before the lock was ours.
            if not self._orders and await self._sync():
                await self._front.use_certificates()
        except StorageError as error:
            self._storage_failed(error)
            self._locked_out_until = now + SYNC_INTERVAL
            return
        for order in self._schedule.orders(now, self._most_orders(), self._orders):
            self._orders[order.host] = asyncio.create_task(self._place(order))
        if not self._orders:
            await self._unlock()

    def _most_orders(self) -> int:
        return ORDERS_AT_ONCE - len(self._orders)

    async def _unlock(self) -> None:
        with contextlib.suppress(StorageError):
            await self._stored(self._records.storage.unlock)

    async def _place(self, order: Order) -> None:
        """Order one certificate, to its end."""
        lease = asyncio.create_task(self._keep_lock())
        try:
            await self._place_or_fail(order)
        except asyncio.CancelledError:
            self._schedule.dropped(order.host)
            raise
        except Exception as error:
            log.exception("certificate order: unexpected error", host=order.host)
            failure = Failure(cause=Cause.INTERNAL, message=f"{type(error).__name__}: {error}")
            await self._failed(order, failure)
        finally:
            lease.cancel()
            del self._orders[order.host]
            if not self._orders:
                await self._unlock()
            self._wake.set()

    async def _keep_lock(self) -> None:
        while True:
            await asyncio.sleep(LOCK_RENEWAL)
            try:
                if not await self._stored(self._records.storage.lock):
                    log.warning("certificate storage: lost the lock to another host")
            except StorageError as error:
                self._storage_failed(error)

    async def _place_or_fail(self, order: Order) -> None:
        assert self._plan is not None
        host, issuer = order.host, self._plan.issuers[order.issuer]
        if order.is_renewal and not await self._is_still_allowed(host):
            return
        log.info("ordering a certificate", host=host, issuer=order.issuer, renewal=order.is_renewal)
        started = time.monotonic()
        key = await asyncio.to_thread(_new_key, self._plan.acme)  # RSA takes a second
        process = IssuerProcess(
            prove=partial(self._challenges.prove, host),
            registered=self._registered,
        )
        try:
            await self._stored(self._records.require_room)
            account = await self._account(issuer)
            chain = await process.order(self._job(issuer, account, self._request(order, key)))
            key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            lifetime = _checked(host, chain, key_pem, self._clock())
            pem = await self._stored(partial(self._records.put_certificate, host, chain, key_pem))
        except IssuerError as error:
            await self._failed(order, error.failure)
            return
        except StorageError as error:
            self._storage_failed(error)
            await self._failed(order, Failure(cause=Cause.INTERNAL, message=str(error)))
            return
        finally:
            await self._challenges.withdraw(host)
        self._counts["issued"] += 1
        async with self._changing:
            self._schedule.succeeded(host, order.issuer, lifetime, self._clock())
            if host in self._schedule:
                self._certificates[host] = pem
                await self._remember(host)
        log.info(
            "certificate issued",
            host=host,
            issuer=order.issuer,
            days=round(lifetime.seconds / 86400, 1),
            seconds=round(time.monotonic() - started, 1),
        )
        await self._front.use_certificates()

    async def _failed(self, order: Order, failure: Failure) -> None:
        async with self._changing:
            await self._note_failure(order, failure)

    async def _note_failure(self, order: Order, failure: Failure) -> None:
        host = order.host
        self._counts[failure.cause.value] += 1
        now = self._clock()
        self._schedule.failed(host, order.issuer, failure, now)
        if host not in self._schedule:
            return
        if not order.is_renewal and self._schedule.record(host).on_demand:
            self._give_up(host, failure, now)
            return
        record, lifetime = self._schedule.record(host), self._schedule.lifetime(host)
        log.error(
            "certificate not renewed" if order.is_renewal else "certificate not issued",
            host=host,
            issuer=order.issuer,
            error=failure.message,
            cause=failure.cause.value,
            failing_seconds=round(now - (record.failing_since or now)),
            days_left=None if lifetime is None else round((lifetime.not_after - now) / 86400, 1),
            next_attempt_seconds=round(max(record.next_attempt - now, 0)),
        )
        await self._remember(host)

    # --- on demand --------------------------------------------------------------------------------

    def names_missing(self, names: list[str]) -> None:
        """Clients ask for names that have no certificate."""
        for name in names:
            if self._plan is None or name in self._schedule:
                continue
            if on_demand_problem(self._plan.config, name) is not None:
                self._front.refuse_names([name])
            else:
                self._on_demand.want(name)

    def _allowed(self, host: str) -> None:
        """A name may have a certificate."""
        if len(list(self._schedule.hosts())) >= HOSTS_MAX:
            log.error("too many certificates", host=host, limit=HOSTS_MAX)
            self._front.refuse_names([host])
            return
        if host not in self._schedule:
            self._schedule.manage(host, HostRecord(on_demand=True), None)
            self._wake.set()

    def _give_up(self, host: str, failure: Failure, now: float) -> None:
        """A name on demand got no certificate: the next client may ask for it, after a while."""
        record = self._schedule.record(host)
        until = max(record.next_attempt, *record.limited.values(), now + BACKOFF_MIN)
        self._on_demand.leave_alone(host, until - now)
        self._schedule.forget(host)
        self._front.refuse_names([host])
        log.error("certificate not issued", host=host, on_demand=True, error=failure.message)

    async def _is_still_allowed(self, host: str) -> bool:
        """Whether to renew a certificate; one that is no longer allowed is dropped."""
        if not self._schedule.record(host).on_demand:
            return True
        if await self._on_demand.is_allowed(host) is not False:  # without an answer, too
            return True
        log.warning("certificate dropped: it is no longer allowed", host=host)
        async with self._changing:
            self._forget(host)
            with contextlib.suppress(StorageError):
                await self._stored(partial(self._records.remove_host, host))
        await self._front.use_certificates()
        return False

    async def _remember(self, host: str) -> None:
        """Store what is known of a name, so that a restart does not begin anew."""
        record = self._schedule.record(host)
        try:
            await self._stored(partial(self._records.put_host, host, record))
        except StorageError as error:
            self._storage_failed(error)

    async def _account(self, issuer: Issuer) -> Account:
        """The account with an issuer; its key is stored before it is used."""
        async with self._account_lock:
            account = await self._stored(partial(self._records.account, issuer.directory))
            if account is None:
                key = ec.generate_private_key(ec.SECP256R1())
                pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                account = Account(directory=issuer.directory, key_pem=pem.decode())
                await self._stored(partial(self._records.put_account, account))
            return account

    async def _registered(self, account: Account) -> None:
        async with self._account_lock:
            await self._stored(partial(self._records.put_account, account))
        log.info("account with the issuer", issuer=account.directory, account=account.uri)

    def _job(self, issuer: Issuer, account: Account, task: PlaceOrder | AskRenewal) -> Job:
        assert self._plan is not None
        return Job(
            account=account,
            email=self._plan.acme.email,
            binding=issuer.binding,
            ca=issuer.ca,
            user_agent=f"quicedge/{quicedge.__version__}",
            user=self._user,
            task=task,
        )

    def _request(
        self, order: Order, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    ) -> PlaceOrder:
        plan = self._plan
        assert plan is not None
        host = order.host
        record = self._schedule.record(host)
        kinds = plan.kinds
        turn = record.failures % len(kinds)
        current = self._certificates.get(host)
        replaces = None
        if current is not None and record.issuer == order.issuer:
            replaces = certificate_id(current.cert)
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return PlaceOrder(
            name=host,
            csr_pem=csr.public_bytes(Encoding.PEM).decode(),
            kinds=[*kinds[turn:], *kinds[:turn]],
            profile=plan.issuers[order.issuer].profile,
            replaces=replaces,
        )

    def challenges(self) -> Challenges:
        """What the workers have to answer now."""
        return self._challenges.answers()

    async def _sync_challenges(self) -> bool:
        """Take over the challenges of other hosts; returns whether they have changed."""
        try:
            return await self._challenges.sync()
        except StorageError as error:
            self._storage_failed(error)
            return False

    async def _watch_challenges(self) -> None:
        """Answer the challenges of other hosts of the fleet, too: issuers may ask any."""
        while True:
            await asyncio.sleep(CHALLENGE_SYNC_INTERVAL)
            try:
                if await self._sync_challenges():
                    await self._challenges.publish()
            except Exception:
                log.exception("challenges: unexpected error")

    # --- renewal information ----------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask issuers when to renew, in the background."""
        if self._asking is not None and not self._asking.done():
            return
        questions = self._schedule.questions(self._clock())
        if questions:
            self._asking = asyncio.create_task(self._ask_all(questions))

    async def _ask_all(self, questions: dict[str, list[str]]) -> None:
        try:
            for directory, hosts in questions.items():
                await self._ask_one(directory, hosts[:QUESTIONS_AT_ONCE])
        except Exception:
            log.exception("renewal information: unexpected error")

    async def _ask_one(self, directory: str, hosts: list[str]) -> None:
        plan = self._plan
        if plan is None or directory not in plan.issuers:
            return
        identifiers = {
            host: identifier
            for host in hosts
            if (pem := self._certificates.get(host)) is not None
            and (identifier := certificate_id(pem.cert)) is not None
        }
        process = IssuerProcess(prove=_no_proof, registered=self._registered)
        found: dict[str, Suggested] = {}
        try:
            issuer = plan.issuers[directory]
            account = await self._account(issuer)
            job = self._job(issuer, account, AskRenewal(certificates=identifiers))
            found = {one.name: one for one in await process.ask(job)}
        except (IssuerError, StorageError) as error:
            log.warning("no renewal information", issuer=directory, error=str(error))
        now = self._clock()
        async with self._changing:
            for host in hosts:
                answer = found.get(host)
                if answer is None or answer.window is None:
                    self._schedule.unanswered(host, now)
                else:
                    self._schedule.suggested(host, answer.window, answer.retry_after, now)
                if host in self._schedule:
                    await self._remember(host)
        self._wake.set()

    # --- operators --------------------------------------------------------------------------------

    async def renew(self, hosts: Iterable[str]) -> list[str]:
        """Renew certificates now, all of them if none is named; returns the names.

        Raises AcmeError for a name that is not managed.
        """
        hosts = list(hosts) or list(self._schedule.hosts())
        for host in hosts:
            if self._plan is None or host not in self._schedule:
                raise AcmeError(f"{host}: no certificate by ACME is configured for it")
        async with self._changing:
            for host in hosts:
                if host in self._schedule:  # still
                    self._schedule.hurry(host, self._clock())
                    await self._remember(host)
        self._wake.set()
        return hosts

    @property
    def status(self) -> AcmeStatus | None:
        """None: not configured."""
        if self._plan is None:
            return None
        now = self._clock()
        return AcmeStatus(
            hosts=[self._host_status(host) for host in self._schedule.hosts()],
            issuers=[
                IssuerStatus(directory=one.directory, down_until=one.down_until, error=one.error)
                for one in self._schedule.issuers(now)
            ],
            storage=self._plan.storage_title,
            storage_error=self._storage_error,
            orders=dict(self._counts),
            on_demand=dict(self._on_demand.counts),
        )

    def _host_status(self, host: str) -> HostStatus:
        record, lifetime = self._schedule.record(host), self._schedule.lifetime(host)
        return HostStatus(
            host=host,
            issuer=record.issuer,
            not_after=None if lifetime is None else lifetime.not_after,
            renew_at=record.renew_at,
            on_demand=record.on_demand,
            ordering=self._schedule.is_ordered(host),
            next_attempt=record.next_attempt or None,
            failing_since=record.failing_since,
            failures=record.failures,
            error=record.error,
        )


async def _no_proof(question: Prove) -> str | None:
    return "a question needs no proof"


def _lifetime(pem: CertificatePem) -> Lifetime:
    found = validity(pem)
    return Lifetime(found.not_before, found.not_after)


def _checked(host: str, chain: bytes, key_pem: bytes, now: float) -> Lifetime:
    """The lifetime of what was issued, if it is what was ordered; raises IssuerError."""
    from quicedge.tcp.tls import TlsError, check_certificate  # only needed here, and not small

    pem = CertificatePem(cert_file=f"acme:{host}", key_file=f"acme:{host}", cert=chain, key=key_pem)
    try:
        certificate = parse_certificate(pem)
        check_certificate(certificate)  # what one worker refuses would keep all from being renewed
    except (CertificateError, TlsError) as error:
        raise IssuerError(Failure(cause=Cause.REJECTED, message=str(error))) from error
    if not certificate.covers(host.replace("*", "any", 1)):
        message = f"the issued certificate does not cover {host}"
        raise IssuerError(Failure(cause=Cause.REJECTED, message=message))
    lifetime = _lifetime(pem)
    if lifetime.not_after <= now:
        # It must not take the place of one that is still valid.
        message = f"the issued certificate for {host} has expired, or the clock is wrong"
        raise IssuerError(Failure(cause=Cause.REJECTED, message=message))
    if lifetime.not_before > now + NOT_YET_VALID_MAX:
        message = f"the issued certificate for {host} is not valid yet, or the clock is wrong"
        raise IssuerError(Failure(cause=Cause.REJECTED, message=message))
    return lifetime


def _new_key(acme: Acme) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    match acme.key_type:
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa2048":
            return rsa.generate_private_key(65537, 2048)
        case "rsa4096":
            return rsa.generate_private_key(65537, 4096)
        case _:
            return ec.generate_private_key(ec.SECP256R1())
