"""`make bench`: quicedge and other edges side by side, CPU time per unit of work.

Each round starts every server in turn on one core, the load and the origin on another, and takes
every measure; a figure is the median of the rounds. A wrong or missing answer fails the run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace

from bench import apps, environment, filters, growth, loads, measures, python_build, report
from bench.proxies import ALL, ROOT, Kind, available


def compare(kinds: list[Kind], rounds: int) -> report.Figures:
    """Take all measures of all servers in turn, `rounds` times."""
    figures: report.Figures = {kind: defaultdict(list) for kind in kinds}
    with environment.setting() as setting:
        for number in range(rounds):
            for kind in kinds:
                try:
                    with environment.serving(kind, setting) as proxy:
                        taken = measures.take(kind, proxy)
                except (loads.WrongAnswer, subprocess.TimeoutExpired) as error:
                    sys.exit(f"bench: {kind.label}: {error}")
                for measured, figure in taken.items():
                    figures[kind][measured].append(figure)
                shown = "  ".join(f"{key} {value:.4g}" for key, value in taken.items())
                print(f"round {number + 1}  {kind.label:24} {shown}", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("compare", "apps", "filters", "growth"), default="compare"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="a server by name; may be repeated")
    parser.add_argument("--protocol", action="append", choices=ALL, help="may be repeated")
    parser.add_argument(
        "--python", help="interpreter that runs quicedge; default: an optimised one"
    )
    parser.add_argument("--no-write", action="store_true", help="print, but keep RESULTS.md")
    options = parser.parse_args()
    if options.what == "filters":
        filters.main(python_build.inspect(sys.executable), write=not options.no_write)
        return
    if reasons := loads.missing():
        sys.exit("bench: " + "; ".join(reasons))
    build = python_build.inspect(options.python) if options.python else python_build.preferred()
    if options.what == "apps":
        apps.main(build, options.rounds, write=not options.no_write)
        return
    kinds, missing = available(build.executable)
    if options.only:
        kinds = [kind for kind in kinds if kind.name in options.only]
    if options.protocol:
        kinds = [
            replace(kind, protocols=tuple(p for p in kind.protocols if p in options.protocol))
            for kind in kinds
        ]
        kinds = [kind for kind in kinds if kind.protocols]
    print(f"quicedge runs on {build}", flush=True)
    if options.what == "growth":
        growth.main(kinds, build, options.rounds, write=not options.no_write)
        return
    figures = compare(kinds, options.rounds)
    medians = {k: {m: statistics.median(v) for m, v in f.items()} for k, f in figures.items()}
    text = report.markdown(figures, medians, missing, options.rounds, build)
    print("\n" + text)
    if not options.no_write:
        report.write(ROOT / "bench", text, medians)


if __name__ == "__main__":
    main()
