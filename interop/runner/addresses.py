"""The addresses that the interop runner's endpoints expect; they exist inside namespaces only."""

from __future__ import annotations

CLIENT_V4, CLIENT_V6 = "193.167.0.100", "fd00:cafe:cafe::100"
SERVER_V4, SERVER_V6 = "193.167.100.100", "fd00:cafe:cafe:100::100"
ROUTER_LEFT_V4, ROUTER_LEFT_V6 = "193.167.0.2", "fd00:cafe:cafe::2"
ROUTER_RIGHT_V4, ROUTER_RIGHT_V6 = "193.167.100.2", "fd00:cafe:cafe:100::2"
CROSS_SENDER_V4, CROSS_RECEIVER_V4 = "193.167.100.110", "193.167.0.90"

CLIENT_MAC = bytes.fromhex("020000000001")
LEFT_MAC = bytes.fromhex("020000000002")
RIGHT_MAC = bytes.fromhex("020000000003")
SERVER_MAC = bytes.fromhex("020000000004")

ENDPOINT_INTERFACE = "eth0"
LEFT_INTERFACE, RIGHT_INTERFACE = "left", "right"
PORT = 443
MTU = 1500

HOSTS = f"""\
127.0.0.1 localhost
::1 localhost
{SERVER_V4} server4 server46 server
{SERVER_V6} server6 server46 server
{CLIENT_V4} client4 client46 client
{CLIENT_V6} client6 client46 client
{ROUTER_LEFT_V4} sim
"""
