"""Proof of a migration: its original and quicedge side by side."""

from __future__ import annotations

from pathlib import Path

from quicedge.migrate.report import Translation
from quicedge.migrate.verify.run import OpenOriginal, verify


def assert_proven(
    path: Path, translation: Translation, open_original: OpenOriginal, least_same: float
) -> None:
    """Requests made from the configuration show no difference that the report did not announce,
    and a share of them none at all: an edge that is left out everywhere would be proven as well."""
    verdict = verify(path, translation, open_original)
    assert verdict.unannounced == [], verdict.render()
    assert verdict.is_proven
    assert verdict.same >= least_same * verdict.played, verdict.render()
