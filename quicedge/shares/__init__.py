"""Fair sharing of scarce resources between clients.

A resource (origin connections, open files, memory for responses) is a `Pool`; clients that may not
take from it yet wait in a `FairQueue`, and `to_reclaim` chooses stalled requests that make room.
A `WorkBudget` bounds how much useless work one client may cause. They identify clients by address
and network and know nothing else: no packets, no requests, no clock.
"""

from quicedge.shares.budget import Standing, WorkBudget
from quicedge.shares.client import Client
from quicedge.shares.pool import Pool
from quicedge.shares.queue import FairQueue
from quicedge.shares.reclaim import to_reclaim

__all__ = ["Client", "FairQueue", "Pool", "Standing", "WorkBudget", "to_reclaim"]
