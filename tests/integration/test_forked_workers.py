"""Workers are forked from a process that was prepared for it: what they share with the supervisor,
what they do not, and what becomes of them when one of the three ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.supervised import Supervised, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks workers on Linux only")

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(ready: bool = True, env: dict[str, str] | None = None, **config) -> Supervised:
        started.append(Supervised(tmp_path, config, **env or {}))
        if ready:
            started[-1].wait_ready()
        return started[-1]

    yield start
    for supervised in started:
        supervised.close()


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def pids(edge: Supervised) -> set[int]:
    """The workers."""
    return {worker["pid"] for worker in edge.workers()}


def known(edge: Supervised) -> int | None:
    """The first worker, once the supervisor knows of it."""
    status, answer = edge.get("/api/v1/status")
    return answer["workers"][0]["pid"] if status == 200 else None


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def sockets(pid: int) -> set[str]:
    """The sockets that a process has open, by inode."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return {link for link in links if link.startswith("socket:")}


def inode_of(port: int) -> str:
    """The socket that listens on a TCP port of 127.0.0.1."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    address, listening = f"0100007F:{port:04X}", "0A"
    (inode,) = [line[9] for line in lines if line[1] == address and line[3] == listening]
    return inode


def rollup(pid: int) -> dict[str, int]:
    """Sums over the memory of a process, in KB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def test_a_worker_shares_the_memory_of_what_all_import(start: Start) -> None:
    edge = start()
    (worker,) = edge.workers()
    memory = rollup(worker["pid"])
    private = memory["Private_Dirty"] + memory["Private_Clean"]
    assert private < memory["Rss"] / 2, memory


def test_workers_are_children_of_the_supervisor_once_all_are_ready(start: Start) -> None:
    edge = start(workers=2)
    wait_for(lambda: children(edge.process.pid) == pids(edge), "the exit of the fork server")


def test_a_worker_has_its_own_sockets_and_not_the_admin_api_s(start: Start) -> None:
    edge = start(workers=2)
    supervisor = sockets(edge.process.pid)
    first, second = (sockets(worker["pid"]) & supervisor for worker in edge.workers())
    # Of each, at least, its UDP and its TCP socket.
    assert len(first - second) >= 2
    assert len(second - first) >= 2
    admin = f"socket:[{inode_of(edge.admin_port)}]"
    assert admin in supervisor
    assert admin not in first | second


def test_more_descriptors_than_a_message_carries_reach_a_worker(start: Start) -> None:
    edge = start(listen=["127.0.0.1:0"] * 130)
    (worker,) = edge.workers()
    assert len(sockets(worker["pid"]) & sockets(edge.process.pid)) >= 260


def test_workers_draw_different_random_numbers(start: Start) -> None:
    edge = start(workers=2)
    assert edge.who_is(0)["random"] != edge.who_is(1)["random"]


def test_the_exit_code_of_a_worker_is_known_when_its_fork_server_is_gone(start: Start) -> None:
    edge = start()
    before = pids(edge)
    wait_for(lambda: children(edge.process.pid) == before, "the exit of the fork server")
    edge.tell("crash")
    assert edge.wait_event("worker died; replacing it")["ending"] == "exit code 3"
    edge.wait_event("worker ready", 2)
    assert not pids(edge) & before
    wait_for(lambda: children(edge.process.pid) == pids(edge), "the exit of the fork server")


def test_replacements_are_forked_together_and_share_memory(start: Start) -> None:
    edge = start(workers=2)
    for pid in pids(edge):
        os.kill(pid, signal.SIGKILL)
    edge.wait_event("worker ready", 4)
    for pid in pids(edge):
        memory = rollup(pid)
        assert memory["Private_Dirty"] < memory["Rss"] / 2, memory
    assert {event["ending"] for event in edge.events("worker died; replacing it")} == {
        "killed by SIGKILL"
    }


def test_a_fork_server_has_one_thread_and_no_socket_of_the_supervisor(
    start: Start, tmp_path: Path
) -> None:
    edge = start(env={"FAKE_WORKER": str(tmp_path / "go")}, ready=False)
    server = wait_for(lambda: children(edge.process.pid), "the fork server").pop()
    wait_for(lambda: children(server), "a worker that is not ready")
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
    # To the supervisor, and the pair that wakes it when a worker ends.
    wait_for(lambda: len(sockets(server)) == 3, "what it passed on is closed")
    assert not sockets(server) & sockets(edge.process.pid)
    (tmp_path / "go").touch()
    edge.wait_ready()


def test_workers_outlive_a_fork_server_that_is_killed(start: Start, tmp_path: Path) -> None:
    edge = start(env={"FAKE_WORKER": str(tmp_path / "go")}, ready=False)
    server = wait_for(lambda: children(edge.process.pid), "the fork server").pop()
    worker = wait_for(lambda: known(edge), "a worker that is not ready")
    os.kill(server, signal.SIGKILL)
    assert edge.wait_event("fork server died")["code"] == -signal.SIGKILL
    (tmp_path / "go").touch()
    edge.wait_ready()
    assert pids(edge) == {worker}
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0


def test_the_fork_server_and_the_workers_end_with_a_supervisor_that_is_killed(
    start: Start, tmp_path: Path
) -> None:
    edge = start(env={"FAKE_WORKER": str(tmp_path / "go")}, ready=False)
    server = wait_for(lambda: children(edge.process.pid), "the fork server").pop()
    (worker,) = wait_for(lambda: children(server), "a worker that is not ready")
    edge.process.kill()
    wait_for(lambda: not is_alive(server) and not is_alive(worker), "the end of all processes")


def test_a_terminal_that_interrupts_the_group_reaches_the_supervisor_alone(start: Start) -> None:
    edge = start(drain_timeout=600)
    (worker,) = pids(edge)
    assert edge.tell("hold") == b"held"
    os.killpg(edge.process.pid, signal.SIGINT)
    edge.wait_event("draining")
    time.sleep(0.1)  # nothing says that a signal did not arrive
    assert is_alive(worker)
    edge.tell("release")
    assert edge.wait() == 0
