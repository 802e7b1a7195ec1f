"""A large trace is read in memory that does not depend on its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.qlogtraces import draft_12, lossy

_MEASURE = """
import json, resource, sys
from quicedge.qlog.analyse import analyse
analysis = analyse(sys.argv[1])
json.dump({"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
           "events": analysis.events, "breaks": analysis.parse_errors.count,
           "lost": analysis.main.lost}, sys.stdout)
"""


def measure(path: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)], capture_output=True, check=True, timeout=100
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def enlarge(path: Path, size: int, contained: bool) -> int:
    """Write a trace of about `size` bytes: the lossy transfer over and over, each time later and
    with further packet numbers. Returns how many times."""
    header, *events = draft_12(lossy().server)
    span = events[-1]["time"] + 50
    step = 1 + max(
        event["data"]["header"].get("packet_number", 0)
        for event in events
        if "header" in event["data"]
    )
    count = turn = 0
    with path.open("w") as file:
        if contained:
            file.write('{"qlog_version":"0.3","traces":[{"events":[')
        else:
            file.write(f"\x1e{json.dumps(header)}\n")
        while file.tell() < size:
            for event in events:
                data = event["data"]
                if "header" in data:
                    head = data["header"]
                    head = {**head, "packet_number": head.get("packet_number", 0) + turn * step}
                    data = {**data, "header": head}
                text = json.dumps({**event, "time": event["time"] + turn * span, "data": data})
                if contained:
                    file.write(("," if count else "") + text)
                else:
                    file.write(f"\x1e{text}\n")
                count += 1
            turn += 1
        if contained:
            file.write(f'],"vantage_point":{json.dumps(header["trace"]["vantage_point"])}}}]}}')
    return turn


@pytest.mark.parametrize("contained", [False, True])
def test_memory_does_not_follow_the_size(tmp_path: Path, contained: bool) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    enlarge(small, 1_500_000, contained)
    turns = enlarge(large, 30_000_000, contained)
    little, much = measure(small), measure(large)
    assert much["events"] == turns * len(lossy().server["traces"][0]["events"])
    assert much["breaks"] == 0
    assert much["lost"] == turns * lossy().datagrams_lost
    # 28 MB more of trace; the graphs and tables fill up to their limits meanwhile.
    assert much["rss"] - little["rss"] < 12_000_000
