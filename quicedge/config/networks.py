"""Validation of lists of addresses and networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from quicedge.config.problems import Problem


def network_problems(where: str, networks: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with each, and what was meant."""
    for index, text in enumerate(networks):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            try:
                meant = (
                    f"{text!r} has host bits set; write {str(ipaddress.ip_network(text, False))!r}"
                )
            except ValueError:
                meant = f"{text!r} is neither an IP address nor a network such as '10.0.0.0/8'"
            yield Problem(f"{where}[{index}]", meant)
