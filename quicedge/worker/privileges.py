"""Drop privileges, irreversibly, before a worker reads any datagram."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import struct
import sys

import msgspec

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


class PrivilegeError(Exception):
    """Privileges cannot be changed as configured; the message names the key and the reason."""


class Identity(msgspec.Struct, frozen=True):
    """A user and its groups."""

    uid: int
    gid: int
    groups: list[int]


def identity_of(user: str | None, group: str | None) -> Identity | None:
    """The identity that workers run as; None: unchanged.

    Raises PrivilegeError for an unknown user or group, and when root privileges are required.
    """
    if user is None:
        if group is not None:
            raise PrivilegeError("group: has no effect without user")
        return None
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise PrivilegeError(f"user: unknown user {user!r}") from None
    gid = entry.pw_gid
    if group is not None:
        try:
            found = grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
        except (KeyError, OverflowError):
            raise PrivilegeError(f"group: unknown group {group!r}") from None
        gid = found.gr_gid
    if entry.pw_uid == 0:
        raise PrivilegeError(f"user: workers must not run as root ({user!r})")
    if os.geteuid() == entry.pw_uid:
        return None
    if os.geteuid() != 0:
        raise PrivilegeError(f"user: changing to {user!r} requires root")
    return Identity(entry.pw_uid, gid, os.getgrouplist(entry.pw_name, gid))


def drop_privileges(identity: Identity | None) -> None:
    """Switch to `identity` irreversibly and give up all capabilities, present and future.

    With None the user stays; unless it is root, capabilities are dropped all the same (workers do
    not need the supervisor's CAP_NET_BIND_SERVICE). Raises PrivilegeError if any step fails.
    """
    try:
        if identity is not None:
            # Groups first: once the user is changed, they cannot be.
            os.setgroups(identity.groups)
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
            _verify(identity)
        if sys.platform == "linux" and os.geteuid() != 0:
            _drop_capabilities()
    except OSError as error:
        raise PrivilegeError(f"user: privileges cannot be dropped: {error}") from error


def _verify(identity: Identity) -> None:
    is_changed = (
        os.getresuid() == (identity.uid,) * 3
        and os.getresgid() == (identity.gid,) * 3
        and set(os.getgroups()) == set(identity.groups)
    )
    if not is_changed:
        raise PrivilegeError("user: privileges were not dropped")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PrivilegeError("user: privileges could be regained")


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # Also ignore set-user-ID bits of programs that we might execute (prctl(2)).
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    # capset(2): effective, permitted and inheritable, each in two words; ambient ones follow.
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")
