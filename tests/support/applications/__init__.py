"""One application in several frameworks, each written as its users write it.

All have the routes of `conversations.HTTP` and a WebSocket at `/ws`.
"""
