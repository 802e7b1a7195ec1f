"""The worker process: one event loop with listeners, connections and exchanges."""
