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
        except ValueError as error:
            try:
                meant = (
                    f"{text!r} has host bits set; write {str(ipaddress.ip_network(text, False))!r}"
                )
            except ValueError:
                meant = str(error)
            yield Problem(f"{where}[{index}]", meant)
