"""What a configuration file may not say: each refusal names the key and what to write instead."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from quicedge.config.loader import ConfigError, load_config, parse_config
from quicedge.config.positions import key_lines

UPSTREAM = '[upstreams.app]\nservers = ["http://127.0.0.1:8000"]\n'
GOOD = f'{UPSTREAM}[[routes]]\nupstream = "app"\n'


def told(text: str) -> list[str]:
    """The problems of a file that has `text` before a route and an upstream."""
    with pytest.raises(ConfigError) as caught:
        parse_config(tomllib.loads(text), "test", Path("/etc/quicedge"))
    return [str(problem) for problem in caught.value.problems]


def route(**keys: str) -> str:
    return GOOD + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # --- routes
        (route(path="/api/*"),
         "routes[0].path: '/api/*': a path matches as a prefix, without *; write '/api/'"),
        (route(path="*"), "routes[0].path: '*' does not start with /; write '/*'"),
        (route(path="/a?b"),
         "routes[0].path: '/a?b' has a query, which routes ignore; write '/a'"),
        (route(path="/a#b"),
         "routes[0].path: '/a#b' has a fragment, which routes ignore; write '/a'"),
        (route(path="/a b"), "routes[0].path: '/a b': characters not allowed in a URL must be "
                             "percent-encoded (%20)"),
        (route(path="/ä"), "routes[0].path: '/ä': characters not allowed in a URL must be "
                           "percent-encoded (%20)"),
        (route(path="/a/../b"), "routes[0].path: '/a/../b': clients resolve . and .. before "
                                "sending; write the resolved path"),
        (route(path=""), "routes[0].path: '' is empty; omit the key instead"),
        (route(path="https://a.example/x"), "routes[0].path: 'https://a.example/x' is a URL; host "
                                            "and path are separate keys"),
        (route(host="https://a.example"), "routes[0].host: 'https://a.example' is a URL; write "
                                          "'a.example'"),
        (route(host="a.example:443"), "routes[0].host: 'a.example:443' is more than a host name; "
                                      "write 'a.example'"),
        (route(host="a.example/x"), "routes[0].host: 'a.example/x' is more than a host name; "
                                    "write 'a.example'"),
        (route(host="[::1]:443"), "routes[0].host: '[::1]:443' is more than a host name; "
                                  "write '::1'"),
        (route(host=""), "routes[0].host: '' is empty; omit the key instead"),
        (route(host="bücher.example"), "routes[0].host: 'bücher.example' is not ASCII; write "
                                       "'xn--bcher-kva.example'"),
        (route(host="a..b"), "routes[0].host: 'a..b' is not a host name"),
        (route(host="*.a.example:443"), "routes[0].host: '*.a.example:443': the part after *. is "
                                        "more than a host name; write 'a.example'"),
        (route(host="*a.example"),
         "routes[0].host: '*a.example': a wildcard must be * or *.example.com"),
        (f'{GOOD}host = "A.example."\n[[routes]]\nupstream = "app"\nhost = "a.example"\n',
         "routes[1]: duplicate route for host 'a.example' and path '/'"),
        # --- hedging and circuit breakers
        ('[upstreams.app]\nservers = ["http://b"]\nhedge = { after = "p50" }\n'
         '[[routes]]\nupstream = "app"\n',
         "upstreams.app.hedge.after: 'p50' is not a duration such as 30s or 500ms above 0 or one "
         "of 'p90', 'p95', 'p99'"),
        ('[upstreams.app]\nservers = ["http://b"]\nhedge = {}\nsticky_cookie = "c"\n'
         '[[routes]]\nupstream = "app"\n',
         "upstreams.app.hedge: not with sticky_cookie: clients would move to whichever server "
         "answers first"),
        ('[upstreams.app]\nservers = ["http://b"]\nhedge = {}\nretry_budget = 0\n'
         '[[routes]]\nupstream = "app"\n',
         "upstreams.app.hedge: has no effect with retry_budget = 0"),
        ('[upstreams.app]\nroot = "/"\n[[routes]]\nupstream = "app"\nhedge = {}\n',
         "routes[0].hedge: has no effect: there is no second server"),
        ('[upstreams.app]\nservers = ["http://b"]\nhedge = {}\n[[routes]]\nupstream = "app"\n',
         "upstreams.app.hedge: has no effect: there is no second server"),
        ('[upstreams.app]\nservers = ["http://b"]\nsticky_cookie = "c"\n'
         '[[routes]]\nupstream = "app"\nhedge = {}\n',
         "routes[0].hedge: not with sticky_cookie: clients would move to whichever server "
         "answers first"),
        ('[upstreams.app]\nservers = ["http://b"]\ncircuit_breaker = { failures = 2 }\n'
         '[[routes]]\nupstream = "app"\n',
         "upstreams.app.circuit_breaker.failures: 2 is too large: the maximum is 1"),
        ('[upstreams.app]\nroot = "/"\ncircuit_breaker = {}\n[[routes]]\nupstream = "app"\n',
         "upstreams.app.circuit_breaker: has no effect with root"),
        (f'{GOOD}upgrade = ["websocket", "H2C"]\n',
         "routes[0].upgrade[1]: 'H2C' would hide requests from the edge and is never forwarded"),
        (f'{GOOD}upgrade = ["http/2.0"]\n',
         "routes[0].upgrade[0]: 'http/2.0' would hide requests from the edge and is never "
         "forwarded"),
        (f'{GOOD}upgrade = ["web socket"]\n',
         "routes[0].upgrade[0]: 'web socket' is not the name of a protocol, such as 'websocket'"),
        (f"{UPSTREAM}[[routes]]\n",
         "routes[0]: upstream or split is required, or a filter that answers (redirect, ...)"),
        (f'{UPSTREAM}[routes]\nupstream = "app"\n',
         "routes: a table is not a list of tables; write [[routes]]"),
        (f"routes = [3]\n{UPSTREAM}", "routes[0]: 3 is not a table"),
        # --- addresses
        (f'listen = ["0.0.0.0:443", "0.0.0.0:443"]\n{GOOD}',
         "listen[1]: '0.0.0.0:443' is listed twice"),
        (f'listen = ["[::1]:443", "[0::1]:443"]\n{GOOD}',
         "listen[1]: '[0::1]:443' is the same address as '[::1]:443'"),
        (f'listen = ["0.0.0.0:443", "192.0.2.1:443"]\n{GOOD}',
         "listen[1]: '192.0.2.1:443' and '0.0.0.0:443' overlap; remove one"),
        (f'listen = ["[2001:db8::1]:443", "[::]:443"]\n{GOOD}',
         "listen[1]: '[::]:443' and '[2001:db8::1]:443' overlap; remove one"),
        (f'listen = [{{ address = "0.0.0.0:443", protocols = ["h2"] }}, "0.0.0.0:443"]\n{GOOD}',
         "listen[1]: '0.0.0.0:443' is the same address as '0.0.0.0:443'"),
        (f'listen = [{{ address = "443" }}]\n{GOOD}', "listen[0].address: '443' is not host:port "
         "or [v6]:port; write '0.0.0.0:443' or '[::]:443'"),
        (f'listen = [{{ adress = "0.0.0.0:443" }}]\n{GOOD}',
         "listen[0].adress: unknown key; did you mean 'address'?"),
        (f'listen = [{{ address = "0.0.0.0:443", protocols = [] }}]\n{GOOD}',
         "listen[0].protocols: must not be empty: no client could connect"),
        (f'protocols = []\n{GOOD}', "protocols: must not be empty: no client could connect"),
        (f'protocols = ["http/1.0"]\n{GOOD}', "protocols[0]: 'http/1.0' is not one of 'h3', 'h2', "
         "'http/1.1'; did you mean 'http/1.1'?"),
        (f'listen = ["192.0.2.1:443"]\nprotocols = ["h2"]\n'
         f'quic.preferred_address = ["192.0.2.1:443"]\n{GOOD}',
         "quic.preferred_address[0]: '192.0.2.1:443' does not speak h3"),
        (f'listen = ["443"]\n{GOOD}', "listen[0]: '443' is not host:port or [v6]:port; write "
                                      "'0.0.0.0:443' or '[::]:443'"),
        (f'listen = [":443"]\n{GOOD}', "listen[0]: ':443' has no address; write '0.0.0.0:443' or "
                                       "'[::]:443'"),
        (f'listen = ["*:443"]\n{GOOD}', "listen[0]: '*:443' has no address; write '0.0.0.0:443' "
                                        "or '[::]:443'"),
        (f'listen = ["::1:443"]\n{GOOD}', "listen[0]: '::1:443' is not host:port or [v6]:port; "
                                          "write '[::1]:443'"),
        (f'listen = ["https://0.0.0.0:443/"]\n{GOOD}',
         "listen[0]: 'https://0.0.0.0:443/' is not host:port or [v6]:port; write '0.0.0.0:443'"),
        (f'listen = ["127.0.0.1"]\n{GOOD}', "listen[0]: '127.0.0.1' is not host:port or [v6]:port; "
                                            "the port is missing, write '127.0.0.1:443'"),
        (f'listen = ["0.0.0.0:65536"]\n{GOOD}',
         "listen[0]: '0.0.0.0:65536': the port is out of range"),
        (f'listen = "0.0.0.0:443"\n{GOOD}',
         "listen: '0.0.0.0:443' is not a list; write ['0.0.0.0:443']"),
        (f'listen = ["localhost:443"]\nquic.preferred_address = ["localhost:443"]\n{GOOD}',
         "quic.preferred_address[0]: 'localhost:443' must be an IP address, not a host name"),
        ('listen = ["192.0.2.1:443", "192.0.2.2:443"]\n'
         f'quic.preferred_address = ["192.0.2.1:443", "192.0.2.2:443"]\n{GOOD}',
         "quic.preferred_address[1]: at most one per address family; '192.0.2.1:443' is already "
         "listed"),
        # --- switched off, and keys that then do nothing
        (f"{GOOD}[alt_svc]\nenabled = false\nmax_age = 86400\n",
         "alt_svc.max_age: has no effect with enabled = false"),
        (f'{GOOD}[admin]\nenabled = false\nlisten = "127.0.0.1:4480"\n',
         "admin.listen: has no effect with enabled = false"),
        (f'{GOOD}[otel]\nservice_name = "edge"\n',
         "otel.service_name: has no effect without enabled = true"),
        (f'{GOOD}[log]\naccess = false\naccess_fields = ["path"]\n',
         "log.access_fields: has no effect with access = false"),
        (f'group = "www"\n{GOOD}', "group: has no effect without user"),
        (f'user = "root"\n{GOOD}', "user: workers must not run as 'root'; "
         "choose an unprivileged user"),
        (f'{GOOD}[limits]\nredis = "redis://127.0.0.1"\n',
         "limits.redis: has no effect without request rates or quic.early_data"),
        (f"{GOOD}[limits]\nmax_connections = 10\nmax_connections_per_address = 20\n",
         "limits.max_connections_per_address: has no effect above max_connections (10)"),
        (f'{GOOD}[limits]\nallow = ["192.0.2.0/24"]\ndeny = ["192.0.2.0/24"]\n',
         "limits.deny[0]: '192.0.2.0/24' is also in allow"),
        (f'{UPSTREAM}tls_verify = true\n[[routes]]\nupstream = "app"\n',
         "upstreams.app.tls_verify: has no effect: no server uses https://"),
        (f'{UPSTREAM}proxy_protocol = 1\nprotocol = "h2"\n[[routes]]\nupstream = "app"\n',
         "upstreams.app.proxy_protocol: not supported with protocol = \"h2\": a connection carries "
         "one client's requests"),
        ('[upstreams.app]\nservers = ["https://a.test"]\nproxy_protocol = 2\n'
         '[[routes]]\nupstream = "app"\n',
         "upstreams.app.proxy_protocol: not supported for servers with https://"),
        (f'redirect_http = [{{ address = "127.0.0.1:80", proxy_protocol = [] }}]\n{GOOD}',
         "redirect_http[0].proxy_protocol: must name the networks of the load balancers"),
        (f'listen = [{{ address = "127.0.0.1:443", proxy_protocol = ["lb"] }}]\n{GOOD}',
         "listen[0].proxy_protocol[0]: 'lb' is neither an IP address nor a network such as "
         "'10.0.0.0/8'"),
        (f'listen = [{{ address = "127.0.0.1:443", proxy_protocol = true }}]\n{GOOD}',
         "listen[0].proxy_protocol: true is not a list"),
        (f'redirect_http = "127.0.0.1:80"\n{GOOD}',
         "redirect_http: '127.0.0.1:80' is not true or false or a list; write ['127.0.0.1:80']"),
        # --- choices, lists, numbers, text
        (f'{UPSTREAM}proxy_protocol = 3\n[[routes]]\nupstream = "app"\n',
         "upstreams.app.proxy_protocol: 3 is not one of 1, 2"),
        (f"{GOOD}[quic]\nversions = []\n",
         "quic.versions: must not be empty: no client could connect"),
        (f'{GOOD}[quic]\nversions = ["v1", "v1"]\n',
         "quic.versions[1]: 'v1' is listed twice"),
        (f'{GOOD}[quic]\nversions = ["v3"]\n',
         "quic.versions[0]: 'v3' is not one of 'v1', 'v2'; did you mean 'v2'?"),
        (f'{GOOD}[quic]\ncongestion_control = "Cubic"\n',
         "quic.congestion_control: 'Cubic' is not one of 'reno', 'cubic', 'bbr'; did you mean "
         "'cubic'?"),
        (f'{GOOD}[upstreams.b]\nservers = ["http://b"]\nbalance = "round-robin"\n',
         "upstreams.b.balance: 'round-robin' is not one of 'round_robin', 'least_requests', "
         "'client_address', 'two_choices', 'latency', 'hash'; did you mean 'round_robin'?"),
        (f'[upstreams.b]\nservers = ["http://b", 3]\n{GOOD}',
         "upstreams.b.servers[1]: 3 is not a string or a table"),
        ('[upstreams.b]\nservers = [{ url = "b" }]\n' + GOOD,
         "upstreams.b.servers[0].url: 'b': expected http://host:port, https://host or unix:/path"),
        ('[upstreams.b]\nservers = [{ url = "http://192.0.2.1", discover = "addresses" }]\n' + GOOD,
         "upstreams.b.servers[0].url: 'http://192.0.2.1': 192.0.2.1 is an address, not a name to "
         "look up"),
        ('[upstreams.b]\nservers = [{ url = "unix:/b", discover = "addresses" }]\n' + GOOD,
         "upstreams.b.servers[0].url: 'unix:/b': a unix socket is not looked up in DNS"),
        ('[upstreams.b]\nservers = [{ url = "http://_http._tcp.b:80", discover = "srv" }]\n' + GOOD,
         "upstreams.b.servers[0].url: 'http://_http._tcp.b:80': SRV records say the port; write it "
         "without one"),
        ('[upstreams.b]\nservers = [{ url = "_http._tcp.b", discover = "srv" }]\n' + GOOD,
         "upstreams.b.servers[0].url: '_http._tcp.b': expected http://host:port, https://host or "
         "unix:/path"),
        ('[upstreams.b]\nservers = [{ url = "http://b", discover = "SRV" }]\n' + GOOD,
         "upstreams.b.servers[0].discover: 'SRV' is not one of 'addresses', 'srv'; did you mean "
         "'srv'?"),
        ('[upstreams.b]\nservers = ["http://b"]\nresolvers = ["192.0.2.1"]\n' + GOOD,
         "upstreams.b.resolvers: has no effect: no server has discover"),
        ('[upstreams.b]\nservers = [{ url = "http://b", discover = "srv" }]\n'
         'resolvers = ["192.0.2.1", "dns.test"]\n' + GOOD,
         "upstreams.b.resolvers[1]: 'dns.test' is not an IP address; write ADDRESS or "
         "ADDRESS:PORT"),
        (f'[upstreams.b]\nservers = "http://b"\n{GOOD}',
         "upstreams.b.servers: 'http://b' is not a list; write ['http://b']"),
        (f'{GOOD}[[routes.requests]]\nrate = 3\n', "routes[0].requests[0].rate: 3 is not a string"),
        (f'{GOOD}[[limits.requests]]\nrate = "1/second"\n[[limits.requests]]\nrate = "1/second"\n',
         "limits.requests[1]: duplicate rate"),
        (f"workers = 0\n{GOOD}", "workers: 0 is not a whole number from 1 to 64 or 'auto'"),
        (f"workers = 100000\n{GOOD}",
         "workers: 100000 is not a whole number from 1 to 64 or 'auto'"),
        (f"workers = true\n{GOOD}", "workers: true is not a whole number from 1 to 64 or 'auto'"),
        (f"{GOOD}[quic]\nidle_timeout = -1\n",
         "quic.idle_timeout: -1 is not a duration such as 30s or 500ms above 0"),
        (f"{GOOD}[quic]\nidle_timeout = nan\n",
         "quic.idle_timeout: nan is not a duration such as 30s or 500ms above 0"),
        (f"{GOOD}[quic]\nidle_timeout = inf\n",
         "quic.idle_timeout: inf is too large: the maximum is 3650 days"),
        (f'{GOOD}[quic]\nidle_timeout = "{"9" * 400}s"\n',
         f"quic.idle_timeout: '{'9' * 59}... is too large: the maximum is 3650 days"),
        (f'{GOOD}[quic]\nmax_data = "{"9" * 400}GB"\n',
         f"quic.max_data: '{'9' * 59}... is not a size such as 64KB or 1MiB of at least 1024"),
        (f'{GOOD}[quic]\nmax_data = "8000000TB"\n',
         "quic.max_data: '8000000TB' is not a size such as 64KB or 1MiB of at least 1024"),
        (f'{GOOD}[quic]\nmax_data = "8000000000GB"\n',
         "quic.max_data: '8000000000GB' is too large: the maximum is 4611686018427387903"),
        (f'{GOOD}[quic]\nidle_timeout = "5 parsecs"\n',
         "quic.idle_timeout: '5 parsecs' is not a duration such as 30s or 500ms above 0"),
        (f"{GOOD}[quic]\nmax_data = 0\n",
         "quic.max_data: 0 is not a size such as 64KB or 1MiB of at least 1024"),
        (f"{GOOD}[quic]\nmax_streams = 1.5\n",
         "quic.max_streams: 1.5 is not a whole number of at least 1"),
        (f"{GOOD}[quic]\nearly_data = 1\n", "quic.early_data: 1 is not true or false"),
        (f"{GOOD}[http3]\nmax_field_section_size = 0\n",
         "http3.max_field_section_size: 0 is not a size such as 64KB or 1MiB of at least 512"),
        (f"{GOOD}[qlog]\nrate = 2\n", "qlog.rate: 2 is too large: the maximum is 1"),
        (f"{GOOD}[alt_svc]\nport = 0\n", "alt_svc.port: 0 is not a whole number from 1 to 65535"),
        (f'{GOOD}[alt_svc]\nmax_age = "10ms"\n',
         "alt_svc.max_age: '10ms' is not a duration such as 30s or 500ms of at least 1"),
        (f'[upstreams.files]\nroot = ""\n{GOOD}',
         "upstreams.files.root: '' is empty; omit the key instead"),
        (f'{GOOD}[log]\nfile = "a\\u0000b"\n',
         "log.file: 'a\\x00b' has unprintable characters"),
        (f'[upstreams.""]\nservers = ["http://b"]\n{GOOD}',
         "upstreams: '' is empty; omit the key instead"),
        # --- names and networks
        (f'{GOOD}[limits]\nallow = ["192.0.2.1/24"]\n',
         "limits.allow[0]: '192.0.2.1/24' has host bits set; write '192.0.2.0/24'"),
        (f'{GOOD}[admin]\nhosts = ["http://edge:4480"]\n',
         "admin.hosts[0]: 'http://edge:4480' is a URL; write 'edge'"),
        (f'{GOOD}[admin]\nlisten = "unix:admin.sock"\n',
         "admin.listen: 'unix:admin.sock': unix: requires an absolute path"),
        (f'{GOOD}[admin]\nlisten = "unix:/{"x" * 120}"\n',
         f"admin.listen: 'unix:/{'x' * 120}': unix socket path exceeds 107 bytes"),
        (f'{GOOD}[admin]\nlisten = "edge.example:4480"\ntoken_file = "t"\n',
         "admin.listen: 'edge.example:4480' must be an IP address or localhost"),
        (f'{GOOD}[limits]\nredis = "redis://host:port/0"\n',
         "limits.redis: 'redis://host:port/0' is not redis://host:port/NUMBER"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_what_to_write(text: str, expected: str) -> None:
    assert expected in told(text)


def test_an_ordinary_configuration_of_every_section_is_accepted() -> None:
    text = """
listen = ["0.0.0.0:443", "[::]:443", "192.0.2.1:8443", "192.0.2.2:8443"]
workers = "auto"
drain_timeout = "1m"
quic = { versions = ["v2"], preferred_address = ["192.0.2.1:8443"], idle_timeout = 30 }
http3 = { qpack_max_table_capacity = "4KB", qpack_blocked_streams = 16 }
alt_svc = { enabled = false }
limits = { max_connections = 1000, max_connections_per_prefix = 100, allow = ["2001:db8::/32"] }
log = { access_fields = ["path", "status"], level = "warning" }
[upstreams.app]
servers = ["https://origin.example:8443", "unix:/run/app.sock", "http://[::1]:80"]
tls_server_name = "origin.example"
health_path = "/up?deep=1"
[[routes]]
upstream = "app"
host = "*.example.com"
path = "/api/v1/"
max_body = 0
[[routes]]
upstream = "app"
host = "::1"
path = "/caf%C3%A9;v=1,2/~me/@x:y"
[admin]
listen = "unix:/run/edge.sock"
"""
    config = parse_config(tomllib.loads(text), "test", Path("/"))
    assert config.routes[1].path == "/caf%C3%A9;v=1,2/~me/@x:y"


# --- positions --------------------------------------------------------------------------------


def test_each_problem_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "quicedge.toml"
    path.write_text(
        '# a comment with = and [brackets]\nlisten = [\n  "0.0.0.0:443", # one\n  "nowhere",\n]\n'
        "workers = 0\n[quic]\nretri = 1\n[[routes]]\nupstream = 'app'\n[[routes]]\nhost = 3\n"
        '[upstreams]\napp = { servers = ["http://a", 5] }\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = {line.partition(": ")[0].rpartition(":")[2] for line in str(caught.value).splitlines()}
    assert lines == {"6", "8", "12", "14"}
    text = path.read_text()
    for wrong, right in (
        ("workers = 0", ""), ("retri", "max_streams"), (", 5]", "]"),
        ("host = 3", "upstream = 'app'\npath = '/x'"),
    ):  # fmt: skip
        text = text.replace(wrong, right)
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:4: listen[1]: 'nowhere' is not host:port")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"listen = [\n'x'\nworkers = ", ":3: Unclosed array (column 1)"),
        (b"a = 1\n\xff\xfe = 2\n", ":2: is not UTF-8 text (byte 6)"),
        (b"a = 1\r\nb = \r\n", ":2: Invalid value (column 5)"),
        (b"a = " + b"[" * 5000, ":1: is nested too deeply"),
        (b"#" * (4 * 1024 * 1024 + 1), ": is too large: more than 4194304 bytes"),
        (b"", ": upstreams: at least one [upstreams.NAME] with servers is required"),
    ],
)
def test_what_is_no_toml_is_one_line_with_its_position(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    path = tmp_path / "quicedge.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}{expected}"


def test_lines_are_found_around_strings_and_brackets() -> None:
    text = '''a = """
[not.a.table]
x = 1
"""
b.c = 'it # is'
"quoted key".d = [ { e = 1 }, { e = [
  "]", '}',
] } ]
[t] # comment
u = {v = 1, w = "}"}
[[list]]
[list.sub]
x = 2024-01-01 10:00:00
[[list]]
y = """a""" # "
z = -1.5e3
'''
    tomllib.loads(text)
    assert key_lines(text) == {
        "a": 1, "b": 5, "b.c": 5, "quoted key": 6, "quoted key.d": 6, "quoted key.d[0]": 6,
        "quoted key.d[0].e": 6, "quoted key.d[1]": 6, "quoted key.d[1].e": 6,
        "quoted key.d[1].e[0]": 7, "quoted key.d[1].e[1]": 7, "t": 9, "t.u": 10, "t.u.v": 10,
        "t.u.w": 10, "list": 11, "list[0]": 11,
        "list[0].sub": 12, "list[0].sub.x": 13, "list[1]": 14,
        "list[1].y": 15, "list[1].z": 16,
    }  # fmt: skip


def test_a_check_of_the_file_alone_looks_at_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "quicedge.toml"
    path.write_text(
        '[upstreams.files]\nroot = "absent"\n[[routes]]\nupstream = "files"\n'
        '[qlog]\ndirectory = "absent too"\n'
    )
    assert load_config(path, machine=False).upstreams["files"].root == str(tmp_path / "absent")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert [problem.key for problem in caught.value.problems] == [
        "upstreams.files.root", "qlog.directory",
    ]  # fmt: skip
