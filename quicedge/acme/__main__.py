"""`python -m quicedge.acme`: one task with one issuer, for the supervisor.

A process of its own, because certbot's `acme` blocks while it waits for an issuer and, with
`requests`, takes 20 MB; and because what an issuer sends is then parsed without the supervisor's
privileges and without the keys of certificates. It reads a `Job` and writes `Message`s.
"""

from __future__ import annotations

import sys

import msgspec

from quicedge.acme.failure import Cause, Failure
from quicedge.acme.wire import Failed, Job, Message, Prove, Proved, line


def _send(message: Message) -> None:
    sys.stdout.buffer.write(line(message))
    sys.stdout.buffer.flush()


def _prove(question: Prove) -> Proved:
    _send(question)
    answer = sys.stdin.buffer.readline()
    if not answer:
        sys.exit(1)  # the supervisor is gone
    return msgspec.json.decode(answer, type=Proved)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    try:
        from quicedge.acme.client import Issuer
        from quicedge.acme.network import OrderError
    except ImportError as error:
        message = f"{error}; pip install 'quicedge[acme]'"
        _send(Failed(failure=Failure(cause=Cause.INTERNAL, message=message)))
        return
    try:
        Issuer(job, _send, _prove).run()
    except OrderError as error:
        _send(Failed(failure=error.failure))
    except (KeyError, TypeError, ValueError) as error:
        message = f"the issuer's answer makes no sense: {type(error).__name__}: {error}"
        _send(Failed(failure=Failure(cause=Cause.UNAVAILABLE, message=message)))


if __name__ == "__main__":
    main()
