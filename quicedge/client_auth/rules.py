"""Of which hosts clients need a certificate, and of which authorities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quicedge.client_auth.certificate import ClientCertificate
from quicedge.client_auth.material import ClientAuthPem
from quicedge.client_auth.verdict import RefusedError
from quicedge.config.schema import ClientAuthMode


class Rule:
    """One entry of `tls.client_auth`."""

    def __init__(self, pem: ClientAuthPem) -> None:
        # Only where there are rules: pyOpenSSL costs every process 2 MB.
        from quicedge.client_auth.verifier import Verifier

        self.pem = pem
        self.is_required = pem.mode is ClientAuthMode.REQUIRE
        self.verifier = Verifier(pem.ca, pem.crl)


@dataclass(slots=True)
class Identity:
    """Who a client has proved to be, on a connection to a host with a rule."""

    rule: Rule | None
    """The rule that it was judged by; None: its host has none any more."""
    server_name: str | None
    """The name that it connected to."""
    certificate: ClientCertificate | None = None
    """None: it has none, and needed none."""
    is_refused: bool = False
    """It does not meet the rule, which is newer than the connection."""


class ClientAuth:
    """All rules of a configuration; a reload creates another."""

    def __init__(self, entries: Iterable[ClientAuthPem], known: ClientAuth | None = None) -> None:
        """Rules of `known` that have not changed are kept: connections have met them."""
        before: list[Rule] = [] if known is None else known.rules
        self.rules: list[Rule] = [
            next((rule for rule in before if rule.pem == pem), None) or Rule(pem) for pem in entries
        ]
        self._by_host = {
            host.lower(): rule for rule in reversed(self.rules) for host in rule.pem.hosts
        }

    def rule_for(self, host: str | None) -> Rule | None:
        """The rule of a host, found as routes are: by its name, else the nearest wildcard."""
        by_host = self._by_host
        if host is not None:
            name = host.lower().rstrip(".")
            found = by_host.get(name)
            while found is None and name:
                _, _, name = name.partition(".")
                found = by_host.get(f"*.{name}")
            if found is not None:
                return found
        return by_host.get("*")

    def admits(self, identity: Identity | None, host: str) -> bool:
        """Whether a connection may carry requests for a host: only if it met the very rule that the
        host has. `identity`: None for a connection to a host without one."""
        rule = self.rule_for(host)
        if identity is None:
            return rule is None
        return self.review(identity) and identity.rule is rule

    def review(self, identity: Identity) -> bool:
        """Judge an identity by the rule of today, once for each; whether it is accepted."""
        rule = self.rule_for(identity.server_name)
        if identity.rule is not rule:
            identity.rule = rule
            identity.is_refused = not _meets(identity.certificate, rule)
        return not identity.is_refused


def _meets(certificate: ClientCertificate | None, rule: Rule | None) -> bool:
    if rule is None:
        return True
    if certificate is None:
        return not rule.is_required
    try:
        rule.verifier.verify(certificate.chain)
    except RefusedError:
        return False
    return True
