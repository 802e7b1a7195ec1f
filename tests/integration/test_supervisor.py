"""The supervisor as a process of its own, over worker processes without QUIC."""

import datetime
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certs import write_certificate
from tests.support.peers import free_edge_port
from tests.support.supervised import Supervised, steered, wait_for, write_config

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(ready: bool = True, config_path: Path | None = None, **rest) -> Supervised:
        env = {key: rest.pop(key) for key in list(rest) if key.isupper()}
        supervised = Supervised(tmp_path, rest, config_path, **env)
        started.append(supervised)
        if ready:
            supervised.wait_ready()
        return supervised

    yield start
    for supervised in started:
        supervised.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_serve_and_a_signal_drains(start: Start) -> None:
    edge = start(workers=2)
    status, answer = edge.get("/api/v1/status")
    assert status == 200
    assert answer["state"] == "running"
    assert answer["connections"] == 6
    assert [worker["state"] for worker in answer["workers"]] == ["ready", "ready"]
    assert answer["listeners"][0]["address"] == f"127.0.0.1:{edge.port}"
    assert answer["listeners"][0]["sockets"] == 2
    assert answer["listeners"][0]["receive_buffer"] > 0
    secrets = set()
    for slot in range(2):
        with edge.talking_to(slot) as sock:
            sock.send(b"who")
            who = json.loads(sock.recv(4096))
            assert who["pid"] == answer["workers"][slot]["pid"]
            secrets.add(who["secret"])
            assert who["secret"] not in " ".join(who["argv"])
    assert len(secrets) == 1
    assert len(secrets.pop()) == 64
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0
    assert not any(_is_alive(worker["pid"]) for worker in answer["workers"])
    assert edge.events("stopped")[0]["killed"] == 0


def test_the_secret_of_tokens_and_resets_survives_a_restart(start: Start, tmp_path: Path) -> None:
    state = tmp_path / "state"
    secrets = set()
    for _ in range(2):
        edge = start(state_directory=str(state))
        secrets.add((edge.who() or {})["secret"])
        edge.signal(signal.SIGTERM)
        assert edge.wait() == 0
    assert secrets == {(state / "secret").read_bytes().hex()}


def test_a_state_directory_that_is_unsafe_fails_the_start(start: Start, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    edge = start(ready=False, state_directory=str(state))
    assert edge.wait() == 1
    (failure,) = edge.events("cannot start")
    assert f"state_directory: {state}: mode 777" in failure["error"]
    assert edge.said() == f"quicedge: {failure['error']}\n"


def test_connections_of_all_workers_are_one_list(start: Start) -> None:
    edge = start(workers=2)
    _, page = edge.get("/api/v1/connections?sort=id&offset=2&limit=2")
    assert page["total"] == 6
    assert page["unanswered"] == []
    assert [row["id"] for row in page["connections"]] == ["0002", "0100"]
    assert edge.get("/api/v1/connections/0101")[1]["worker"] == 1
    assert edge.get("/api/v1/connections/ffff")[0] == 404
    _, page = edge.get("/api/v1/connections?address=192.0.2.1:5001")
    assert [row["id"] for row in page["connections"]] == ["0101"]


def test_a_drain_waits_for_what_runs(start: Start) -> None:
    edge = start()
    with edge.talking_to(0) as sock:
        sock.send(b"hold")
        assert sock.recv(100) == b"held"
        edge.signal(signal.SIGTERM)
        wait_for(lambda: edge.get("/readyz")[0] == 503, "not ready while draining")
        assert edge.get("/readyz")[1] == "not ready: draining\n"
        assert edge.get("/healthz")[0] == 200
        assert edge.process.poll() is None
        sock.send(b"release")
    assert edge.wait() == 0


def test_a_drained_worker_answers_newcomers_until_the_last_has_drained(start: Start) -> None:
    edge = start(workers=2)
    with edge.talking_to(0) as busy, edge.talking_to(1) as idle:
        busy.send(b"hold")
        assert busy.recv(100) == b"held"
        edge.signal(signal.SIGTERM)
        wait_for(lambda: edge.workers()[1]["state"] == "draining", "draining")
        idle.send(b"who")
        answer = json.loads(idle.recv(4096))
        assert (answer["slot"], answer["draining"]) == (1, True)
        busy.send(b"release")
    assert edge.wait() == 0
    assert edge.events("stopped")[0]["killed"] == 0


def test_a_drain_ends_after_its_time(start: Start) -> None:
    edge = start(drain_timeout=0.5)
    assert edge.tell("hold") == b"held"
    edge.signal(signal.SIGTERM)
    assert edge.wait(10) == 0


def test_a_second_signal_stops_at_once(start: Start) -> None:
    edge = start(drain_timeout=600)
    assert edge.tell("hold") == b"held"
    edge.signal(signal.SIGINT)
    edge.wait_event("shutdown requested")
    edge.signal(signal.SIGINT)
    assert edge.wait(10) == 0


def test_a_worker_that_hangs_is_killed_at_the_end(start: Start) -> None:
    edge = start(drain_timeout=0.2)
    edge.tell("hang")
    edge.signal(signal.SIGTERM)
    assert edge.wait(20) == 1
    assert edge.events("stopped")[0]["killed"] == 1


def test_ctrl_c_in_a_terminal_reaches_the_supervisor_alone(start: Start) -> None:
    edge = start()
    assert edge.tell("hold") == b"held"
    os.killpg(edge.process.pid, signal.SIGINT)
    edge.wait_event("shutdown requested")
    assert json.loads(edge.tell("who") or b"{}")["draining"]
    edge.tell("release")
    assert edge.wait() == 0


@pytest.mark.parametrize("how", ["crash", "SIGKILL"])
def test_a_dead_worker_is_replaced_and_the_others_are_unharmed(start: Start, how: str) -> None:
    edge = start(workers=2)
    before = edge.workers()
    with edge.talking_to(0) as lost, edge.talking_to(1) as kept:
        if how == "crash":
            lost.send(b"crash")
        else:
            os.kill(before[0]["pid"], signal.SIGKILL)
        died = edge.wait_event("worker died; replacing it")
        assert died["slot"] == 0
        assert died["ending"] == ("exit code 3" if how == "crash" else "killed by SIGKILL")
        wait_for(lambda: edge.get("/readyz")[0] == 200, "ready again")
        after = edge.workers()
        # Old source ports go where they went before: the group of sockets never changed.
        for sock, slot in ((lost, 0), (kept, 1)):
            sock.send(b"who")
            assert json.loads(sock.recv(4096))["pid"] == after[slot]["pid"]
    assert after[0]["pid"] != before[0]["pid"]
    assert after[0]["restarts"] == 1
    assert after[1]["pid"] == before[1]["pid"]
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0


def test_datagrams_wait_in_the_socket_while_a_worker_is_replaced(start: Start) -> None:
    edge = start()
    old = edge.workers()[0]["pid"]
    os.kill(old, signal.SIGKILL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", edge.port))
        sock.settimeout(20)
        sock.send(steered(0, b"who"))
        assert json.loads(sock.recv(4096))["pid"] != old


def test_workers_that_keep_dying_are_tried_ever_more_slowly(start: Start) -> None:
    edge = start()
    for count in range(1, 4):
        edge.tell("crash")
        died = edge.wait_event("worker died; replacing it", count)
        assert died["delay_seconds"] == pytest.approx(0.1 * 2 ** (count - 1))
        wait_for(lambda: edge.get("/readyz")[0] == 200, "ready again")
    assert edge.workers()[0]["restarts"] == 3


def test_workers_that_cannot_start_fail_the_start(start: Start) -> None:
    edge = start(ready=False, workers=2, FAKE_WORKER="exit")
    assert edge.wait() == 1
    assert "exit code 7" in edge.events("cannot start")[0]["error"]


def test_a_stop_during_the_start_is_obeyed(start: Start) -> None:
    edge = start(ready=False, FAKE_WORKER="silent")
    wait_for(lambda: edge.get("/healthz")[0] == 200, "admin answers")
    assert edge.get("/readyz") == (503, "not ready: starting\n")
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0


def test_workers_end_when_the_supervisor_is_killed(start: Start) -> None:
    edge = start(workers=2)
    pids = [worker["pid"] for worker in edge.workers()]
    edge.process.kill()
    edge.wait()
    wait_for(lambda: not any(_is_running(pid) for pid in pids), "workers gone")


def _is_running(pid: int) -> bool:
    """Alive, and no zombie that nobody has collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"listen": ["127.0.0.1"]}, "is not host:port"),
        ({"listen": ["192.0.2.1:4433"]}, "listen: 192.0.2.1:4433: "),
        ({"admin": {"listen": "0.0.0.0:0"}}, "not a loopback address"),
    ],
)
def test_a_bad_address_fails_the_start_and_is_named(start: Start, config, words) -> None:
    edge = start(ready=False, **config)
    assert edge.wait() == 1
    assert words in edge.events("cannot listen")[0]["error"]
    assert words in edge.said(), "the log is a file, and somebody waits at a terminal"


def test_a_second_edge_with_the_same_control_socket_is_told_of_the_first(start: Start) -> None:
    first = start()
    second = start(ready=False)
    assert second.wait() == 1
    path = first.config["control_socket"]
    assert second.said() == (
        f"quicedge: control_socket: {path}: another edge answers there; "
        "`quicedge status` shows it\n"
    )
    assert first.who() is not None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port_fails_the_start(start: Start, tmp_path: Path, workers: int) -> None:
    port = free_edge_port()
    first = start(workers=2, listen=[f"127.0.0.1:{port}"])
    first.log.unlink()
    second = start(
        ready=False, workers=workers, listen=[f"127.0.0.1:{port}"],
        control_socket=str(tmp_path / "second.sock"),
    )  # fmt: skip
    assert second.wait() == 1
    assert f"127.0.0.1:{port}: Address already in use" in second.events("cannot listen")[0]["error"]


# --- reload and logs --------------------------------------------------------------------------


def test_reload_changes_workers_without_replacing_them(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "quicedge.toml"
    edge = start(workers=2, drain_timeout=30.0, config_path=path)
    pids = [worker["pid"] for worker in edge.workers()]
    pair = write_certificate(tmp_path, "a.example")
    write_config(edge.config, path, drain_timeout=7.0, certificates=[pair])
    edge.signal(signal.SIGHUP)
    edge.wait_event("configuration reloaded")
    for slot in range(2):
        with edge.talking_to(slot) as sock:
            sock.send(b"who")
            who = json.loads(sock.recv(4096))
            assert who["drain_timeout"] == 7.0
            assert who["certificates"] == [str(pair[0])]
    _, status = edge.get("/api/v1/status")
    assert status["reloads"] == 1
    assert status["last_reload_error"] is None
    assert [worker["pid"] for worker in status["workers"]] == pids
    # A worker that is started later gets the new one too.
    edge.tell("crash")
    edge.wait_event("worker died; replacing it")
    wait_for(lambda: edge.get("/readyz")[0] == 200, "ready again")
    for slot in range(2):
        with edge.talking_to(slot) as sock:
            sock.send(b"who")
            assert json.loads(sock.recv(4096))["drain_timeout"] == 7.0


def test_a_worker_that_starts_during_a_reload_catches_up(start: Start, tmp_path: Path) -> None:
    path, gate, access = tmp_path / "quicedge.toml", tmp_path / "gate", tmp_path / "access.log"
    log = {"format": "json", "file": str(tmp_path / "edge.log"), "access_file": str(access)}
    edge = start(ready=False, config_path=path, log=log, drain_timeout=30.0, FAKE_WORKER=str(gate))
    wait_for(edge.who, "the worker runs, not ready")
    write_config(edge.config, path, drain_timeout=7.0)
    access.rename(tmp_path / "access.log.1")
    edge.signal(signal.SIGHUP)
    edge.signal(signal.SIGUSR1)
    edge.wait_event("configuration reloaded")
    edge.wait_event("logs reopened")
    assert (edge.who() or {})["drain_timeout"] == 30.0
    assert not access.exists()
    gate.touch()
    edge.wait_ready()
    wait_for(lambda: (edge.who() or {}).get("drain_timeout") == 7.0, "the new configuration")
    wait_for(access.exists, "the worker's new access log")


@pytest.mark.parametrize("fault", ["syntax", "key", "certificate", "listen", "missing"])
def test_a_bad_reload_changes_nothing_and_says_where(start: Start, tmp_path, fault) -> None:
    path = tmp_path / "quicedge.toml"
    edge = start(drain_timeout=30.0, config_path=path)
    if fault == "syntax":
        path.write_text("listen = [")
        words = str(path)
    elif fault == "key":
        write_config(edge.config, path, drain_tiemout=7.0)
        words = "drain_tiemout"
    elif fault == "certificate":
        missing = tmp_path / "missing.pem"
        write_config(edge.config, path, drain_timeout=7.0, certificates=[(missing, missing)])
        words = str(missing)
    elif fault == "listen":
        write_config(edge.config, path, drain_timeout=7.0, listen=["192.0.2.1:4433"])
        words = "listen: 192.0.2.1:4433: Cannot assign"
    else:
        words = f"{path}: No such file or directory"
    edge.signal(signal.SIGHUP)
    assert words in edge.wait_event("reload failed; configuration unchanged")["error"]
    who = edge.who()
    assert who is not None
    assert who["drain_timeout"] == 30.0
    assert words in edge.get("/api/v1/status")[1]["last_reload_error"]
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0


def test_without_a_file_a_reload_reads_the_certificates_again(start: Start, tmp_path) -> None:
    cert, key = write_certificate(tmp_path, "a.example")
    edge = start(tls={"certificates": [{"cert": str(cert), "key": str(key)}]})
    edge.signal(signal.SIGHUP)
    edge.wait_event("configuration reloaded")
    key.write_text("garbage")
    edge.signal(signal.SIGHUP)
    error = edge.wait_event("reload failed; configuration unchanged")["error"]
    assert str(key) in error


def test_logs_rotate_by_renaming_and_sigusr1(start: Start, tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    log = {"format": "json", "file": str(tmp_path / "edge.log"), "access_file": str(access)}
    edge = start(workers=2, log=log)
    sent = []
    for number in range(3):
        for slot in range(2):
            with edge.talking_to(slot) as sock:
                for n in range(20):
                    path = f"/{number}/{slot}/{n}"
                    sock.send(f"access {path}".encode())
                    assert sock.recv(100) == b"logged"
                    sent.append(path)
        access.rename(tmp_path / f"access.log.{number}")
        edge.log.rename(tmp_path / f"edge.log.{number}")
        edge.signal(signal.SIGUSR1)
        wait_for(edge.log.exists, "new log")
        edge.wait_event("logs reopened")
    assert access.exists()
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0
    files = [access, *(tmp_path / f"access.log.{n}" for n in range(3))]
    logged = [json.loads(line)["path"] for file in files for line in file.read_text().splitlines()]
    assert sorted(logged) == sorted(sent)
    assert "/2/1/0" in (tmp_path / "access.log.2").read_text()


def test_certificates_that_expire_are_logged_and_measured(start: Start, tmp_path: Path) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1, hours=12)
    cert, key = write_certificate(tmp_path, "a.example", expires=soon)
    edge = start(tls={"certificates": [{"cert": str(cert), "key": str(key)}]})
    said = edge.wait_event("certificate expires soon")
    assert (said["file"], said["days_left"]) == (str(cert), 1)
    series = f'quicedge_certificate_expires_timestamp_seconds{{certificate="{cert}"}} '
    lines = edge.get("/metrics")[1].splitlines()
    (value,) = [line.removeprefix(series) for line in lines if line.startswith(series)]
    assert float(value) == int(soon.timestamp())
    # A renewed one takes its place at a reload, here and in what is measured.
    later = soon + datetime.timedelta(days=90)
    write_certificate(tmp_path, "a.example", expires=later)
    edge.signal(signal.SIGHUP)
    edge.wait_event("configuration reloaded")
    assert edge.get("/api/v1/status")[1]["certificates"][0]["not_after"] == int(later.timestamp())
    metrics = edge.get("/metrics")[1].splitlines()
    assert "quicedge_reloads_total 1.0" in metrics
    assert "quicedge_last_reload_successful 1.0" in metrics
    key.write_text("garbage")
    edge.signal(signal.SIGHUP)
    edge.wait_event("reload failed; configuration unchanged")
    assert "quicedge_last_reload_successful 0.0" in edge.get("/metrics")[1].splitlines()


def test_systemd_is_notified(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(20)
        edge = start(NOTIFY_SOCKET=path)
        assert systemd.recv(1000).startswith(b"READY=1")
        who = edge.who()
        assert who is not None
        assert "NOTIFY_SOCKET" not in who["environ"]
        edge.signal(signal.SIGHUP)
        assert systemd.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert systemd.recv(1000).startswith(b"READY=1")
        edge.signal(signal.SIGTERM)
        assert systemd.recv(1000) == b"STOPPING=1"
        assert edge.wait() == 0
