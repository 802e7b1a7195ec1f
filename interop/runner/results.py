"""Many runs' results.json as one page of tables, quicedge on one side of each."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop.runner.cases import CASES
from interop.runner.peerfaults import PEER_FAULTS
from interop.runner.report import MARKS
from interop.runner.trial import Result

_BY_VALUE = {result.value: result for result in Result}
_SHARE = re.compile(r"(\d+) of \d+: ")
"""How the matrix shows that some of several repetitions failed."""
_WORST_FIRST = (Result.FAILED, Result.UNSUPPORTED, Result.SUCCEEDED)


@dataclass
class _Tally:
    """What a pair did in a case, over all runs that were found."""

    runs: int = 0
    failed: int = 0
    results: set[Result] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)
    details: str = ""

    @property
    def worst(self) -> Result | None:
        return next((result for result in _WORST_FIRST if result in self.results), None)

    def __str__(self) -> str:
        times = ""
        if self.runs > 1 and self.worst is Result.SUCCEEDED:
            times = f" ({self.runs})"
        elif self.failed < self.runs and self.worst is Result.FAILED:
            times = f" {self.failed} of {self.runs}"
        return f"{MARKS[self.worst]}{times} {self.details}".strip()


def summarize(directory: Path, ours: str) -> str:
    """Markdown of all results.json below `directory`; pairs without `ours` are left out."""
    tallies: dict[tuple[str, str, str], _Tally] = defaultdict(_Tally)
    versions: dict[str, str] = {}
    newest = 0.0
    for file in sorted(directory.rglob("results.json")):
        found = json.loads(file.read_text())
        versions |= found["versions"]
        newest = max(newest, found["end_time"])
        _add(found, tallies)
    lines = ["# quicedge in the QUIC interop runner's cases", ""]
    day = time.strftime("%d %B %Y", time.gmtime(newest))
    named = ", ".join(f"{name} {version}".strip() for name, version in sorted(versions.items()))
    lines += [
        f"Written by `python -m interop results`; the last run was on {day}. Versions: {named}.",
        "✓ succeeded, ✕ failed, ? not supported, · not run. `✓ (3)`: in each of three runs;",
        "`✕ 1 of 3`: one of three failed.",
    ]
    reasons: list[str] = []
    for title, role in (("server", 1), ("client", 0)):
        pairs = [key[:2] for key in tallies if key[role] == ours]
        peers = list(dict.fromkeys(pair[1 - role] for pair in pairs))
        peers.sort(key=lambda peer: peer == ours)
        lines += ["", f"## quicedge as {title}", "", f"| case | {' | '.join(peers)} |"]
        lines.append("|---|" + "---|" * len(peers))
        for case in CASES:
            row = []
            for peer in peers:
                client, server = (peer, ours) if role else (ours, peer)
                tally = tallies.get((client, server, case.name), _Tally())
                row.append(str(tally))
                if tally.reasons and (role or peer != ours):
                    why = "; ".join(dict.fromkeys(tally.reasons))
                    known = PEER_FAULTS.get((client, server, case.name))
                    if known:
                        why += f" ({known})"
                    reasons.append(
                        f"- {MARKS[tally.worst]} {client} → {server}, {case.name}: {why}"
                    )
            lines.append(f"| {case.name} | {' | '.join(row)} |")
    return "\n".join([*lines, "", "## Why not", "", *(reasons or ["Nothing failed."])]) + "\n"


def _add(found: dict[str, Any], tallies: dict[tuple[str, str, str], _Tally]) -> None:
    pairs = [(client, server) for client in found["clients"] for server in found["servers"]]
    for kind in ("results", "measurements"):
        for (client, server), entries in zip(pairs, found[kind], strict=True):
            for entry in entries:
                tally = tallies[client, server, entry["name"]]
                tally.runs += entry["runs"]
                if entry["result"] is not None:
                    tally.results.add(_BY_VALUE[entry["result"]])
                if entry["reason"]:
                    share = _SHARE.match(entry["reason"])
                    tally.failed += int(share[1]) if share else entry["runs"]
                    tally.reasons.append(entry["reason"][share.end() if share else 0 :])
                tally.details = entry.get("details") or tally.details
