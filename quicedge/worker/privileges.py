"""Becoming somebody else, for good: what a worker does before it hears the first stranger."""

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
    """Privileges that cannot be changed as configured; the message says which key and why."""


class Identity(msgspec.Struct, frozen=True):
    """A user with all its groups."""

    uid: int
    gid: int
    groups: list[int]


def identity_of(user: str | None, group: str | None) -> Identity | None:
    """Whom workers shall become, by the configuration; None: nobody else.

    PrivilegeError when there is no such user or group, or only root could do it.
    """
    if user is None:
        if group is not None:
            raise PrivilegeError("group: has no effect without user")
        return None
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise PrivilegeError(f"user: there is no {user!r} on this machine") from None
    gid = entry.pw_gid
    if group is not None:
        try:
            found = grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
        except (KeyError, OverflowError):
            raise PrivilegeError(f"group: there is no {group!r} on this machine") from None
        gid = found.gr_gid
    if entry.pw_uid == 0:
        raise PrivilegeError(f"user: {user!r} is root, whose privileges are what to drop")
    if os.geteuid() == entry.pw_uid:
        return None
    if os.geteuid() != 0:
        raise PrivilegeError(f"user: only root can become {user!r}")
    return Identity(entry.pw_uid, gid, os.getgrouplist(entry.pw_name, gid))


def drop_privileges(identity: Identity | None) -> None:
    """Become `identity` in a way that cannot be undone, with no capability and none to come.

    None: stay who we are; unless that is root, capabilities go all the same (a supervisor that
    may bind port 443 need not share that). PrivilegeError when any of it did not take effect.
    """
    try:
        if identity is not None:
            # In this order: once the user is changed, groups cannot be.
            os.setgroups(identity.groups)
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
            _verify(identity)
        if sys.platform == "linux" and os.geteuid() != 0:
            _renounce_capabilities()
    except OSError as error:
        raise PrivilegeError(f"user: privileges cannot be dropped: {error}") from error


def _verify(identity: Identity) -> None:
    is_other = (
        os.getresuid() == (identity.uid,) * 3
        and os.getresgid() == (identity.gid,) * 3
        and set(os.getgroups()) == set(identity.groups)
    )
    if not is_other:
        raise PrivilegeError("user: privileges were not dropped")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PrivilegeError("user: privileges could be regained")


def _renounce_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # Programs that we might start gain nothing by set-user-ID bits either (prctl(2)).
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    # capset(2): effective, permitted and inheritable, each in two words; ambient ones follow.
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")
