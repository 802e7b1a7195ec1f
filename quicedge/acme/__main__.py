"""`python -m quicedge.acme`: one task with one issuer, for the supervisor.

A process of its own, because certbot's `acme` blocks while it waits for an issuer and, with
`requests`, takes 20 MB; and because what an issuer sends is then parsed without the supervisor's
privileges and without the keys of certificates. It reads a `Job` and writes `Message`s.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile

import msgspec

from quicedge.acme.failure import Cause, Failure
from quicedge.acme.wire import Failed, Job, Message, Prove, Proved, User, line
from quicedge.config.acmelimits import ISSUER_PROCESS_MEMORY

_REASON_MAX = 500
"""Characters of an error."""


def _send(message: Message) -> None:
    sys.stdout.buffer.write(line(message))
    sys.stdout.buffer.flush()


def _prove(question: Prove) -> Proved:
    _send(question)
    answer = sys.stdin.buffer.readline()
    if not answer:
        sys.exit(1)  # the supervisor is gone
    return msgspec.json.decode(answer, type=Proved)


def _become(user: User) -> None:
    """Give up the supervisor's privileges, irreversibly, before anything is received.

    All that is needed is loaded before: the new user may not be able to read this installation.
    """
    "host".encode("idna")  # loads what looking up an address needs
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _readable_bundle(path: str, user: User) -> str:
    """A copy of a CA bundle that a user can read."""
    with open(path, "rb") as bundle:
        content = bundle.read()
    copy = tempfile.NamedTemporaryFile(prefix="quicedge-ca-", delete=False)  # noqa: SIM115
    with copy:
        copy.write(content)
    os.chown(copy.name, user.uid, user.gid)
    return copy.name


def _bound_memory() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > ISSUER_PROCESS_MEMORY:
        resource.setrlimit(resource.RLIMIT_DATA, (ISSUER_PROCESS_MEMORY, ISSUER_PROCESS_MEMORY))


def main() -> None:
    _bound_memory()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    try:
        import certifi

        from quicedge.acme.client import Issuer
        from quicedge.acme.network import OrderError
    except ImportError as error:
        message = f"{error}; pip install 'quicedge[acme]'"
        _send(Failed(failure=Failure(cause=Cause.INTERNAL, message=message)))
        return
    bundle = None
    try:
        user = job.user
        if user is not None:
            bundle = _readable_bundle(job.ca or certifi.where(), user)
            job = msgspec.structs.replace(job, ca=bundle)
            _become(user)
        Issuer(job, _send, _prove).run()
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        _send(Failed(failure=Failure(cause=Cause.INTERNAL, message=message)))
    except OrderError as error:
        _send(Failed(failure=error.failure))
    except Exception as error:  # from reading what the issuer sent, in whatever library
        message = f"the issuer's answer makes no sense: {type(error).__name__}: {error}"
        message = message.partition("\n")[0][:_REASON_MAX]
        _send(Failed(failure=Failure(cause=Cause.UNAVAILABLE, message=message)))
    finally:
        if bundle is not None:
            os.unlink(bundle)


if __name__ == "__main__":
    main()
