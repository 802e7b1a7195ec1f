"""One task with one issuer. Imported only in the process that speaks to it."""

from __future__ import annotations

import base64
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import josepy as jose
from acme import client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from quicedge.acme.challenge import ChallengeKind, Proof
from quicedge.acme.failure import Cause, Failure
from quicedge.acme.lifetime import Window
from quicedge.acme.network import Network, OrderError, Payload, one_line, retry_after
from quicedge.acme.wire import (
    Account,
    AskRenewal,
    Issued,
    Job,
    Message,
    PlaceOrder,
    Prove,
    Proved,
    Registered,
    Suggested,
)
from quicedge.config.acmelimits import CERTIFICATE_MAX, POLL_MAX, POLL_MIN, VALIDATION_TIMEOUT

Send = Callable[[Message], None]
Prover = Callable[[Prove], Proved]
"""Has proofs put in place, and returns when they are."""


class Issuer:
    """An account with an issuer. All methods raise OrderError."""

    def __init__(self, job: Job, send: Send, prove: Prover) -> None:
        self._job = job
        self._send = send
        self._prove = prove
        account_key: Any = load_pem_private_key(job.account.key_pem.encode(), None)
        self._key = jose.JWKEC(key=jose.ComparableECKey(account_key))
        self._network = Network(self._key, ca=job.ca, user_agent=job.user_agent)
        try:
            with self._network.impatience():  # nothing is lost yet
                directory = client.ClientV2.get_directory(job.account.directory, self._network)
        except (ValueError, errors.Error) as error:
            raise OrderError(_unusable(job.account.directory)) from error
        self._directory = directory
        self._client = client.ClientV2(directory, self._network)

    def run(self) -> None:
        """Do what the job asks for."""
        match self._job.task:
            case PlaceOrder() as task:
                self._use_account()
                self._send(Issued(chain_pem=self._order(task)))
            case AskRenewal() as task:
                for name, identifier in task.certificates.items():
                    self._send(self._suggestion(name, identifier))

    # --- the account ------------------------------------------------------------------------------

    def _use_account(self) -> None:
        uri = self._job.account.uri
        if uri is None:
            self._register()
        else:
            self._network.account = messages.RegistrationResource(
                uri=uri, body=messages.Registration()
            )

    def _register(self) -> None:
        """Register the key, or find the account that it has."""
        job, binding = self._job, self._job.binding
        self._network.account = None
        external = None
        if binding is not None:
            try:
                external = messages.ExternalAccountBinding.from_data(
                    self._key.public_key(), binding.key_id, binding.hmac_key, self._directory
                )
            except (ValueError, jose.DeserializationError) as error:
                message = "eab_hmac_key is not base64url, as the issuer hands it out"
                raise OrderError(Failure(cause=Cause.REFUSED, message=message)) from error
        registration = messages.NewRegistration.from_data(
            email=job.email, terms_of_service_agreed=True, external_account_binding=external
        )
        try:
            uri = self._client.new_account(registration).uri
        except errors.ConflictError as error:
            uri = error.location
        except OrderError as error:
            failure = error.failure
            if failure.cause is Cause.REJECTED:  # not because of a name
                raise OrderError(_renamed(failure, Cause.REFUSED)) from error
            raise
        self._network.account = messages.RegistrationResource(uri=uri, body=messages.Registration())
        account = Account(directory=job.account.directory, key_pem=job.account.key_pem, uri=uri)
        self._send(Registered(account=account))

    # --- an order ---------------------------------------------------------------------------------

    def _order(self, task: PlaceOrder) -> str:
        response = self._new_order(task)
        order, url = response.json(), response.headers["Location"]
        self._authorize(order["authorizations"], task.kinds)
        order = self._wait(url, {"pending"}, order)
        if order["status"] == "ready":
            csr = x509.load_pem_x509_csr(task.csr_pem.encode())
            der = _base64url(csr.public_bytes(Encoding.DER))
            order = self._post(order["finalize"], {"csr": der}).json()
            order = self._wait(url, {"processing", "ready"}, order)
        if order["status"] != "valid":
            raise OrderError(self._problem(order.get("error"), "the order failed"))
        chain = self._post(order["certificate"], None).text
        if len(chain) > CERTIFICATE_MAX:
            message = f"the issued chain has {len(chain)} bytes"
            raise OrderError(Failure(cause=Cause.REJECTED, message=message))
        return chain

    def _new_order(self, task: PlaceOrder) -> Any:
        members: dict[str, Any] = {"identifiers": [{"type": "dns", "value": task.name}]}
        if task.profile is not None:
            members["profile"] = task.profile
        if task.replaces is not None and "renewalInfo" in self._directory.to_partial_json():
            try:
                return self._post_order({**members, "replaces": task.replaces})
            except errors.ConflictError:
                pass  # already replaced (RFC 9773 section 5)
            except OrderError as error:
                if error.failure.cause is not Cause.REJECTED:
                    raise
        return self._post_order(members)

    def _post_order(self, members: dict[str, Any]) -> Any:
        url = self._directory["newOrder"]
        try:
            return self._post(url, members)
        except OrderError as error:
            if not error.failure.message.startswith("accountDoesNotExist"):
                raise
        self._register()  # the issuer has forgotten us, as test servers do
        return self._post(url, members)

    def _authorize(self, urls: list[str], kinds: list[ChallengeKind]) -> None:
        """Prove that the names are ours; those that the issuer remembers need no new proof."""
        pending = []
        for url in urls:
            found = self._post(url, None).json()
            if found["status"] == "pending":
                pending.append((url, self._choose(found, kinds)))
            elif found["status"] != "valid":
                message = f"the authorization for {_name(found)} is {found['status']}"
                raise OrderError(Failure(cause=Cause.REJECTED, message=one_line(message)))
        if not pending:
            return
        proved = self._prove(Prove(proofs=[proof for _, (proof, _) in pending]))
        if proved.error is not None:
            raise OrderError(Failure(cause=Cause.INTERNAL, message=proved.error))
        for _, (_, challenge) in pending:
            self._post(challenge, {})
        for url, (proof, _) in pending:
            found = self._wait(url, {"pending", "processing"})
            if found["status"] != "valid":
                problems = [one.get("error") for one in found.get("challenges", ())]
                problem = next((one for one in problems if one), None)
                what = f"{proof.kind} for {proof.name} failed"
                raise OrderError(self._problem(problem, what))

    def _choose(self, authorization: Any, kinds: list[ChallengeKind]) -> tuple[Proof, str]:
        """The challenge that we prefer, and its URL."""
        offered = {one["type"]: one for one in authorization["challenges"]}
        for kind in kinds:
            if kind in offered:
                token = offered[kind]["token"]
                thumbprint = _base64url(self._key.thumbprint())
                proof = Proof(
                    kind=kind,
                    name=_name(authorization),
                    token=token,
                    key_authorization=f"{token}.{thumbprint}",
                )
                return proof, offered[kind]["url"]
        message = (
            f"the issuer offers {', '.join(offered) or 'no challenge'} for "
            f"{_name(authorization)}, of which this edge can meet none ({', '.join(kinds)})"
        )
        raise OrderError(Failure(cause=Cause.REJECTED, message=one_line(message)))

    def _wait(self, url: str, statuses: set[str], current: Any = None) -> Any:
        """Ask for a resource until its status is none of these, as slowly as the issuer wants."""
        deadline = time.monotonic() + VALIDATION_TIMEOUT
        delays = _delays()
        while current is None or current["status"] in statuses:
            response = self._post(url, None)
            current = response.json()
            if current["status"] not in statuses:
                break
            wait = retry_after(response)
            delay = next(delays) if wait is None else min(max(wait, POLL_MIN), POLL_MAX)
            if time.monotonic() + delay > deadline:
                message = f"still {current['status']} after {VALIDATION_TIMEOUT:g} s"
                raise OrderError(Failure(cause=Cause.UNAVAILABLE, message=message))
            time.sleep(delay)
        return current

    def _problem(self, problem: Any, what: str) -> Failure:
        """The failure that an object of the issuer describes."""
        try:
            failure = self._network.failure_of(messages.Error.from_json(problem))
        except (jose.DeserializationError, TypeError, AttributeError):
            return Failure(cause=Cause.REJECTED, message=one_line(what))
        if failure.cause is not Cause.RATE_LIMITED:
            failure = _renamed(failure, Cause.REJECTED)
        return Failure(
            cause=failure.cause,
            message=one_line(f"{what}: {failure.message}"),
            retry_after=failure.retry_after,
        )

    def _post(self, url: str, members: dict[str, Any] | None) -> Any:
        """POST an object, or with None POST-as-GET (RFC 8555 section 6.3)."""
        payload = None if members is None else Payload(members)
        return self._network.post(url, payload, new_nonce_url=self._directory["newNonce"])

    # --- renewal information ----------------------------------------------------------------------

    def _suggestion(self, name: str, identifier: str) -> Suggested:
        try:
            base = self._directory["renewalInfo"]
        except KeyError:
            return Suggested(name=name, window=None)
        try:
            response = self._network.get(f"{base.rstrip('/')}/{quote(identifier)}")
            found = response.json()["suggestedWindow"]
            window = Window(start=_moment(found["start"]), end=_moment(found["end"]))
        except OrderError as error:
            if error.failure.cause is not Cause.REJECTED:
                raise
            return Suggested(name=name, window=None)
        except (KeyError, TypeError, ValueError):
            return Suggested(name=name, window=None)
        return Suggested(name=name, window=window, retry_after=retry_after(response))


def _renamed(failure: Failure, cause: Cause) -> Failure:
    return Failure(cause=cause, message=failure.message, retry_after=failure.retry_after)


def _unusable(directory: str) -> Failure:
    message = f"{directory} is no ACME directory"
    return Failure(cause=Cause.UNAVAILABLE, message=message)


def _name(authorization: Any) -> str:
    return str(authorization["identifier"]["value"])


def _moment(text: str) -> float:
    """Seconds since the epoch of a time of RFC 3339."""
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.timestamp()


def _delays() -> Iterator[float]:
    delay = POLL_MIN
    while True:
        yield delay
        delay = min(delay * 2, POLL_MAX)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
