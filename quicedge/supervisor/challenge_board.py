"""Challenges in progress, here and at other hosts of a fleet, and who has to answer them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial

from quicedge.acme.challenge import ChallengeKind, Challenges, Proof, answers
from quicedge.acme.records import Records
from quicedge.acme.storage import StorageError
from quicedge.acme.wire import Prove
from quicedge.config.acmelimits import CHALLENGE_SPREAD
from quicedge.supervisor.dns_command import DnsCommand

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")
"""RFC 8555 section 8.3: characters of base64url."""


class ChallengeBoard:
    """Puts proofs in place for orders, and takes them back.

    `tell` has all workers answer challenges, and returns why one does not.
    """

    def __init__(self, tell: Callable[[Challenges], Awaitable[str | None]]) -> None:
        self._tell = tell
        self._records: Records | None = None
        """Where the hosts of a fleet find each other's; None: there are no others."""
        self._dns = DnsCommand([])
        self._proofs: dict[str, list[Proof]] = {}
        """Of orders in progress here."""
        self._others: list[Proof] = []
        """Of orders in progress anywhere."""
        self._seen: dict[str, Hashable] = {}

    def use(self, records: Records | None, dns_command: Sequence[str]) -> None:
        """Follow a configuration from now on."""
        if records is not self._records:
            self._records = records
            self._others, self._seen = [], {}
        self._dns = DnsCommand(dns_command)

    def answers(self) -> Challenges:
        """What the workers have to answer now."""
        own = [proof for proofs in self._proofs.values() for proof in proofs]
        return answers([*own, *(proof for proof in self._others if proof not in own)])

    async def publish(self) -> str | None:
        return await self._tell(self.answers())

    async def prove(self, host: str, question: Prove) -> str | None:
        """Put the proofs of an order in place; returns why not."""
        if not all(_is_ours(proof, host) for proof in question.proofs):
            return "the issuer wants a proof for another name, or with a token that is none"
        self._proofs[host] = question.proofs
        dns, others = _split(question.proofs)
        error = await self._dns.add(dns)
        if error is not None or not others:
            return error
        error = await self.publish()
        if error is not None or self._records is None:
            return error
        try:
            await asyncio.to_thread(self._records.put_challenges, host, others)
        except StorageError as failure:
            return str(failure)
        await asyncio.sleep(CHALLENGE_SPREAD)
        return None

    async def withdraw(self, host: str) -> None:
        """Take the proofs of an order back."""
        dns, others = _split(self._proofs.pop(host, []))
        await self._dns.remove(dns)
        if not others:
            return
        await self.publish()
        if self._records is not None:
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(partial(self._records.remove_challenges, host))

    async def sync(self) -> bool:
        """Take over what other hosts have to prove; returns whether that has changed.

        Raises StorageError.
        """
        records = self._records
        if records is None:
            return False
        found = await asyncio.to_thread(records.challenge_versions)
        if found == self._seen:
            return False
        self._others = await asyncio.to_thread(records.challenges)
        self._seen = found
        return True


def _is_ours(proof: Proof, host: str) -> bool:
    """Whether a proof is for a name that was ordered. Certificates, commands and paths are made of
    what the issuer sends."""
    return proof.name == host.removeprefix("*.") and _TOKEN.fullmatch(proof.token) is not None


def _split(proofs: Sequence[Proof]) -> tuple[list[Proof], list[Proof]]:
    """Those in the DNS, and those that workers answer for."""
    dns = [proof for proof in proofs if proof.kind is ChallengeKind.DNS_01]
    return dns, [proof for proof in proofs if proof not in dns]
