"""Fair shares of scarce things: who holds how much, and who may take more.

A scarce thing (origin connections, open files, memory for responses) is a `Pool`; whoever may not
take from it yet waits in a `FairQueue`. What one client may do without use is its `WorkBudget`.
They know clients by address and by network and nothing else: no packet, no request, no clock.
"""

from quicedge.shares.budget import Standing, WorkBudget
from quicedge.shares.client import Client
from quicedge.shares.pool import Pool
from quicedge.shares.queue import FairQueue

__all__ = ["Client", "FairQueue", "Pool", "Standing", "WorkBudget"]
