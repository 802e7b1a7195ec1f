"""The pool of workers, with real processes and short times."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from quicedge.admin.view import WorkerState
from quicedge.config.schema import Admin, Config, Log
from quicedge.supervisor import workers as workers_module
from quicedge.supervisor.spawning import FreshInterpreters
from quicedge.supervisor.workers import Worker, WorkerError, WorkerPool
from quicedge.worker.control import AT_ONCE, ControlError, ListeningSocket, Settings, WorkerSpec
from tests.support.supervised import steered

ENTRY = "tests.support.fake_worker:run"


@pytest.fixture
def sock() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture
async def make_pool(sock, tmp_path) -> AsyncIterator[Callable[..., WorkerPool]]:
    pools = []
    config = Config(admin=Admin(enabled=False), log=Log(file=str(tmp_path / "log")))

    def make_spec(slot: int, control_fd: int) -> WorkerSpec:
        return WorkerSpec(
            slot=slot,
            workers=1,
            settings=Settings(config=config),
            sockets=[ListeningSocket(sock.fileno(), "127.0.0.1:0")],
            control_fd=control_fd,
            secret=bytes(32),
        )

    def make_pool(workers: int = 1, **rest) -> WorkerPool:
        pool = WorkerPool(
            workers, make_spec, **{"spawner": FreshInterpreters(), "entry": ENTRY, **rest}
        )
        pools.append(pool)
        return pool

    yield make_pool
    for pool in pools:
        await pool.stop(AT_ONCE)
    sock.close()


async def test_a_hung_worker_is_replaced(make_pool, sock, monkeypatch) -> None:
    monkeypatch.setattr(workers_module, "WORKER_HEARTBEAT", 0.05)
    monkeypatch.setattr(workers_module, "WORKER_HEARTBEATS_MISSED", 3)
    ready: asyncio.Queue[Worker] = asyncio.Queue()
    pool = make_pool(on_ready=ready.put_nowait)
    await pool.start()
    first = await ready.get()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(steered(0, b"hang"), sock.getsockname())
    async with asyncio.timeout(20):
        second = await ready.get()
    assert second.pid != first.pid
    assert first.state is WorkerState.DEAD
    assert pool.restarts == {0: 1}


async def test_a_worker_that_never_becomes_ready_fails_the_start(make_pool, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_WORKER", "silent")
    monkeypatch.setattr("quicedge.supervisor.start_timeout.WORKER_START_TIMEOUT", 0.5)
    with pytest.raises(WorkerError, match="worker 0 failed to start: killed by SIGKILL"):
        await make_pool().start()


async def test_an_entry_that_does_not_exist_fails_the_start(make_pool) -> None:
    with pytest.raises(WorkerError, match="exit code 1"):
        await make_pool(entry="tests.support.no_such:run").start()


async def test_a_dead_slot_is_an_error_of_that_slot_alone(make_pool) -> None:
    pool = make_pool(workers=2)
    await pool.start()
    pool.current[0].kill()
    await pool.current[0].exited()
    answers, errors = await pool.ask("stats")
    assert list(answers) == [1]
    assert isinstance(errors[0], ControlError)


async def test_a_pool_stops_before_it_has_started(make_pool) -> None:
    pool = make_pool(workers=2)
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)
    await pool.stop(AT_ONCE)
    starting.cancel()
    assert all(
        worker is None or worker.state is WorkerState.DEAD for worker in pool.current.values()
    )
