"""The worker process: one event loop with listeners, connections and exchanges."""

import quicedge.lean_imports  # noqa: F401  before anything else of a worker
