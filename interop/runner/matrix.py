"""The whole matrix: every client against every server in every case, with who is compliant."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interop.runner.cases import Case
from interop.runner.implementations import Implementation
from interop.runner.trial import Outcome, Pair, Result, Site, compliant, run_trial

Progress = Callable[[str, str, str, Outcome], None]
"""Called with client, server, case and what became of it, after each trial."""


@dataclass
class Cell:
    """What a pair did in a case: one outcome a repetition; none when the pair was not run."""

    case: Case
    outcomes: list[Outcome] = field(default_factory=list)
    reason: str = ""

    @property
    def result(self) -> Result | None:
        """The worst of the repetitions."""
        results = {outcome.result for outcome in self.outcomes}
        for result in (Result.FAILED, Result.UNSUPPORTED, Result.SUCCEEDED):
            if result in results:
                return result
        return None

    @property
    def details(self) -> str:
        """Goodput over the repetitions, as the interop runner words it."""
        values = [outcome.kbps for outcome in self.outcomes if outcome.kbps is not None]
        if not values:
            return ""
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.0f} (± {deviation:.0f}) kbps"

    @property
    def why(self) -> str:
        """The reasons of what did not succeed, and how often of how many it was."""
        bad = [outcome for outcome in self.outcomes if outcome.result is not Result.SUCCEEDED]
        reasons = list(dict.fromkeys(outcome.reason for outcome in bad if outcome.reason))
        share = f"{len(bad)} of {len(self.outcomes)}: " if len(self.outcomes) > 1 else ""
        return self.reason or (share + "; ".join(reasons) if bad else "")


@dataclass
class Matrix:
    """Everything a run found. `cells[client, server]` are in the order of `cases`."""

    clients: Sequence[Implementation]
    servers: Sequence[Implementation]
    cases: Sequence[Case]
    directory: Path
    start_time: float = 0.0
    end_time: float = 0.0
    cells: dict[tuple[str, str], list[Cell]] = field(default_factory=dict)

    def reasons(self) -> list[tuple[str, str, Result | None, str]]:
        """(pair, case, result, reason) of all that did not succeed, a pair not run in one line."""
        found: list[tuple[str, str, Result | None, str]] = []
        for (client, server), cells in self.cells.items():
            pair = f"{client} → {server}"
            if cells and cells[0].reason:
                found.append((pair, "every case", None, cells[0].reason))
                continue
            found += [(pair, cell.case.name, cell.result, cell.why) for cell in cells if cell.why]
        return found

    @property
    def failed(self) -> int:
        return sum(cell.result is Result.FAILED for cells in self.cells.values() for cell in cells)


def run_matrix(
    site: Site,
    clients: Sequence[Implementation],
    servers: Sequence[Implementation],
    cases: Sequence[Case],
    directory: Path,
    *,
    repeat: int,
    progress: Progress,
) -> Matrix:
    """Run it all, one trial at a time; each trial's files go to server_client/case[/repetition]."""
    matrix = Matrix(clients, servers, cases, directory, start_time=time.time())
    verdicts: dict[tuple[str, str], str | None] = {}

    def objection(implementation: Implementation, role: str) -> str | None:
        key = implementation.name, role
        if key not in verdicts:
            at = directory / "compliance" / f"{implementation.name}_{role}"
            verdict = compliant(site, implementation, role, at)
            verdicts[key] = f"{implementation.name} as {role} is {verdict}" if verdict else None
        return verdicts[key]

    for client in clients:
        for server in servers:
            pair = Pair(client, server)
            cells = matrix.cells.setdefault((client.name, server.name), [])
            refused = objection(client, "client") or objection(server, "server")
            for case in cases:
                cell = Cell(case, reason=refused or "")
                cells.append(cell)
                for number in range(0 if refused else repeat):
                    at = directory / f"{server.name}_{client.name}" / case.name
                    at = at / str(number + 1) if repeat > 1 else at
                    outcome = run_trial(site, case, pair, at)
                    cell.outcomes.append(outcome)
                    progress(client.name, server.name, case.name, outcome)
                    if outcome.result is Result.UNSUPPORTED:
                        break
    matrix.end_time = time.time()
    return matrix
