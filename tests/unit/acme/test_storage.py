"""Storages, and what is kept in them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quicedge.acme.challenge import ChallengeKind, Proof
from quicedge.acme.directory_storage import DirectoryStorage
from quicedge.acme.records import Records
from quicedge.acme.schedule import HostRecord
from quicedge.acme.storage import Storage, StorageError
from quicedge.acme.wire import Account
from quicedge.config import devcerts
from tests.support.redisserver import redis_server


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["directory", "redis"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Storage, Storage]]:
    """The same storage as two hosts of a fleet use it."""
    pair: list[Any]
    if request.param == "directory":
        pair = [DirectoryStorage(tmp_path / "shared") for _ in range(2)]
    else:
        from quicedge.acme.redis_storage import RedisStorage

        url = request.getfixturevalue("redis_url")
        pair = [RedisStorage(url) for _ in range(2)]
        pair[0]._redis.flushall()
    yield pair[0], pair[1]
    for storage in pair:
        storage.close()


def test_a_value_is_seen_by_all_hosts_until_it_is_removed(two: tuple[Storage, Storage]) -> None:
    here, there = two
    assert there.read("hosts/a.example.com.json") is None
    here.write("hosts/a.example.com.json", b"1")
    assert there.read("hosts/a.example.com.json") == b"1"
    here.remove("hosts/a.example.com.json")
    here.remove("hosts/a.example.com.json")
    assert there.read("hosts/a.example.com.json") is None


def test_a_version_changes_with_its_value_and_with_no_other(two: tuple[Storage, Storage]) -> None:
    here, there = two
    assert there.versions("hosts") == {}
    here.write("hosts/a", b"1")
    here.write("hosts/b", b"1")
    here.write("accounts/c", b"1")
    before = there.versions("hosts")
    assert set(before) == {"a", "b"}
    here.write("hosts/a", b"2")
    after = there.versions("hosts")
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]


def test_only_one_host_has_the_lock_until_it_frees_it(two: tuple[Storage, Storage]) -> None:
    here, there = two
    assert here.lock()
    assert here.lock(), "keeping it is no second taking"
    assert not there.lock()
    here.unlock()
    assert there.lock()
    assert not here.lock()


def test_a_host_that_ends_frees_the_lock(two: tuple[Storage, Storage]) -> None:
    here, there = two
    assert here.lock()
    here.close()
    assert there.lock()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from quicedge.acme.directory_storage import DirectoryStorage\n"
        f"assert DirectoryStorage({str(tmp_path)!r}).lock()\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    here = DirectoryStorage(tmp_path)
    assert not here.lock()
    process.kill()
    process.wait()
    process.stdout.close()
    assert here.lock()
    here.close()


def test_a_lease_in_redis_that_was_lost_is_not_taken_for_kept(redis_url: str) -> None:
    from quicedge.acme.redis_storage import RedisStorage

    here, there = RedisStorage(redis_url), RedisStorage(redis_url)
    here._redis.flushall()
    assert here.lock()
    here._redis.flushall()  # the lease has run out
    assert there.lock()
    assert not here.lock()
    here.unlock()
    assert not here.lock(), "the lock of another host is not freed"
    here.close()
    there.close()


def test_files_are_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path / "acme")
    mask = os.umask(0)
    try:
        storage.write("accounts/a.json", b"x" * 10)
    finally:
        os.umask(mask)
    path = tmp_path / "acme" / "accounts" / "a.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    torn: list[bytes] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            value = storage.read("accounts/a.json")
            if value is None or len(set(value)) != 1 or len(value) not in (10, 100_000):
                torn.append(value or b"")

    watching = threading.Thread(target=watch)
    watching.start()
    for n in range(30):
        storage.write("accounts/a.json", bytes([65 + n % 26]) * 100_000)
    ended.set()
    watching.join()
    assert torn == []
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.write("accounts/a.json", b"{}")
    (tmp_path / "accounts" / "a.json").chmod(0o644)
    with pytest.raises(StorageError, match="chmod 600"):
        storage.read("accounts/a.json")


def test_a_redis_that_is_down_is_named_without_its_password() -> None:
    from quicedge.acme.redis_storage import RedisStorage

    storage = RedisStorage("redis://:geheim@127.0.0.1:1/0")
    with pytest.raises(StorageError, match=r"redis://127\.0\.0\.1:1") as failure:
        storage.read("hosts/a")
    assert "geheim" not in str(failure.value)


# --- records ------------------------------------------------------------------------------------


@pytest.fixture
def records(two: tuple[Storage, Storage]) -> Records:
    return Records(two[0])


@pytest.mark.parametrize("host", ["www.example.com", "*.example.com"])
def test_certificates_are_found_again_by_host(records: Records, tmp_path: Path, host: str) -> None:
    files = devcerts.ensure(tmp_path / "certs", (host,))
    records.put_certificate(host, files.cert.read_bytes(), files.key.read_bytes())
    found = records.certificate(host)
    assert found is not None
    assert found.cert.strip() == files.cert.read_bytes().strip()
    assert found.key.strip() == files.key.read_bytes().strip()
    assert set(records.versions()) == {host}
    assert records.certificate("other.example.com") is None


def test_the_version_of_a_host_covers_certificate_and_record(
    records: Records, tmp_path: Path
) -> None:
    files = devcerts.ensure(tmp_path / "certs", ("a.example.com",))
    records.put_host("a.example.com", HostRecord(failures=1))
    first = records.versions()
    records.put_certificate("a.example.com", files.cert.read_bytes(), files.key.read_bytes())
    second = records.versions()
    records.put_host("a.example.com", HostRecord(failures=2))
    third = records.versions()
    assert len({first["a.example.com"], second["a.example.com"], third["a.example.com"]}) == 3
    assert records.host("a.example.com") == HostRecord(failures=2)
    assert records.host("b.example.com") == HostRecord()


def test_a_damaged_certificate_or_record_is_an_error_that_names_it(records: Records) -> None:
    records.storage.write("certificates/a.example.com.pem", b"nonsense")
    with pytest.raises(StorageError, match=r"a\.example\.com"):
        records.certificate("a.example.com")
    records.storage.write("hosts/a.example.com.json", b"{")
    with pytest.raises(StorageError, match=r"a\.example\.com"):
        records.host("a.example.com")


def test_accounts_are_kept_by_issuer(records: Records) -> None:
    one = Account(directory="https://a.example/dir", key_pem="1", uri="https://a.example/acct/1")
    other = Account(directory="https://a.example/other", key_pem="2")
    records.put_account(one)
    records.put_account(other)
    assert records.account(one.directory) == one
    assert records.account(other.directory) == other
    assert records.account("https://b.example/dir") is None
    assert "key" not in repr(one)


def test_challenges_of_all_orders_are_found(records: Records) -> None:
    proofs = [
        Proof(kind=ChallengeKind.HTTP_01, name=name, token=f"t-{name}", key_authorization="k")
        for name in ("a.example.com", "b.example.com")
    ]
    before = records.challenge_versions()
    for proof in proofs:
        records.put_challenges(proof.name, [proof])
    assert records.challenge_versions() != before
    assert sorted(records.challenges(), key=lambda proof: proof.name) == proofs
    records.remove_challenges("a.example.com")
    assert records.challenges() == proofs[1:]
