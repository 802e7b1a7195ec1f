import socket

from quicedge.supervisor import notify


def test_lines_reach_the_socket(monkeypatch, tmp_path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify.notify("READY=1", "STATUS=2 workers")
        assert systemd.recv(100) == b"READY=1\nSTATUS=2 workers"


def test_an_abstract_socket(monkeypatch) -> None:
    name = "quicedge-test-notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name)
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify.notify(*notify.reloading())
        assert systemd.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_nobody_listening_is_no_error(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify.notify("READY=1")
