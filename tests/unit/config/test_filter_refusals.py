"""Filters and conditions that are refused: each with its place and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.config.loader import ConfigError, load_config
from tests.support.filtered import config_of

HEAD = '[upstreams.app]\nservers = ["http://127.0.0.1:8000"]\n[[routes]]\n'
"""Three lines; the filter or condition is on the fourth."""

CONDITIONS = [
    ('path_regex = "("', "routes[0].path_regex: '(' is not a regular expression of RE2: missing )"),
    (r"path_regex = '(a)\1'", "invalid escape sequence"),
    ('path_regex = "ä"', "'ä' is not ASCII; write other characters percent-encoded"),
    ('methods = ["get"]', "'get' would match no request: methods are case-sensitive; write 'GET'"),
    ('methods = ["A B"]', "routes[0].methods[0]: 'A B' is not a method"),
    ('extensions = ["*.PNG"]', "routes[0].extensions[0]: '*.PNG' must be written 'png'"),
    ('headers = { "a b" = "1" }', "'a b' is not a name that can occur"),
    ('headers = { host = "a" }', "routes[0].headers.host: never matches; use the key host"),
    ('headers = { a = "~(" }', "routes[0].headers.a: '(' is not a regular expression"),
    ('query = { "a=b" = "1" }', "'a=b' is not a name that can occur"),
    ('clients = ["10.0.0.1/8"]', "routes[0].clients[0]: '10.0.0.1/8' has host bits set"),
    ("tls = {}", "routes[0].tls: is empty; set versions, server_names, early_data or"),
    (
        'tls = { client_subjects = ["~("] }',
        "routes[0].tls.client_subjects[0]: '(' is not a regular expression",
    ),
    (
        'tls = { client_certificate = false, client_names = ["a"] }',
        "routes[0].tls.client_names: never matches with client_certificate = false",
    ),
    ('tls = { versions = ["TLSv1.1"] }', "'TLSv1.1' is not one of 'TLSv1.2', 'TLSv1.3'"),
    ('host = ["a.test", "https://b.test"]', "routes[0].host[1]: 'https://b.test' is a URL"),
    ("host = []", "routes[0].host: must not be empty; omit the key for all hosts"),
    ('path_exact = "x"', "routes[0].path_exact: 'x' does not start with /; write '/x'"),
    ('path_exact = "/x"\npath = "/y"', "routes[0].path: has no effect with path_exact"),
    (
        'headers = { a = "1" }\n[[routes]]\nupstream = "app"\nheaders = { a = "1" }',
        "routes[1]: duplicate route for host '*' and path '/'",
    ),
]

FILTERS = [
    ("{}", "routes[0].filters[0]: is empty; a filter has one key of redirect, "),
    (
        '{ redirect = { to = "/" }, rewrite = { query = "drop" } }',
        "has redirect and rewrite; a filter has one key of",
    ),
    ("{ redirekt = {} }", "routes[0].filters[0].redirekt: unknown key; did you mean 'redirect'?"),
    ('{ redirect = { to = "b.test" } }', "is neither a path nor a URL; write 'https://b.test'"),
    ('{ redirect = { to = "//b.test" } }', "has no scheme; write 'https://b.test'"),
    ('{ redirect = { to = "/{pfad}" } }', "has an unknown placeholder {pfad}; did you mean 'path'"),
    ('{ redirect = { to = "/{header}" } }', "{header} needs a name: {header.NAME}"),
    ('{ redirect = { to = "/{x" } }', "has a single '{'; write '{{' for a brace"),
    ('{ redirect = { to = "/a b" } }', "characters that must be percent-encoded in a URL"),
    (
        '{ redirect = { to = "/{match.1}" } }',
        "{match.1} has no effect: the route has no path_regex",
    ),
    ('{ redirect = { to = "/", status = 200 } }', "200 is not one of 301, 302, 303, 307, 308"),
    (
        '{ redirect = { to = "/" } }, { rewrite = { query = "drop" } }',
        "routes[0].filters[1]: is never reached: the redirect before it answers",
    ),
    ('{ respond = { status = 204, body = "x" } }', "has no effect with the status 204"),
    (r'{ respond = { body = "a\u0000b" } }', "has unprintable characters"),
    (r'{ redirect = { to = "/a\nb" } }', "has unprintable characters"),
    ("{ respond = { status = 100 } }", "100 is not a whole number from 200 to 599"),
    ("{ rewrite = {} }", "changes nothing; set one of strip_prefix, pattern, "),
    ('{ rewrite = { strip_prefix = "x" } }', "'x' is not a path such as /app"),
    ('{ rewrite = { pattern = "*" } }', "is not a regular expression of RE2"),
    (
        r"{ rewrite = { pattern = 'a', replacement = '\1' } }",
        "names the group 1, but the pattern has 0",
    ),
    ('{ rewrite = { replacement = "/x", query = "drop" } }', "has no effect without pattern"),
    ('{ rewrite = { path = "x" } }', "rewrite.path: 'x' does not start with /"),
    ("{ rewrite_location = { map = {} } }", "rewrite_location.map: must not be empty"),
    ("{ rewrite_location = { fields = [] } }", "rewrite_location.fields: must not be empty"),
    ('{ rewrite_location = { fields = ["te"] } }', "fields[0]: 'te' frames messages"),
    (
        '{ rewrite_location = { map = { "b.test" = "/" } } }',
        "map.b.test: 'b.test' is neither a path nor the beginning of a URL such as http://",
    ),
    ('{ rewrite_location = { map = { "//b.test" = "/" } } }', "'//b.test' is neither a path nor"),
    (
        '{ rewrite_location = { map = { "http://u@b.test/" = "/" } } }',
        "'http://u@b.test/' is neither a path nor",
    ),
    ('{ rewrite_location = { map = { "/a?b" = "/" } } }', "'/a?b' has a query or a fragment"),
    ('{ rewrite_location = { map = { "/a b" = "/" } } }', "must be percent-encoded in a URL"),
    ('{ rewrite_location = { map = { "/{x}" = "/" } } }', "unknown placeholder {x}"),
    (
        '{ rewrite_location = { map = { "/{match.1}" = "/" } } }',
        "{match.1} has no effect: the route has no path_regex",
    ),
    ('{ rewrite_location = { map = { upstream = "a" } } }', "'a' is neither a path nor a URL"),
    ('{ rewrite_location = { map = { upstream = "//a" } } }', "'//a' has no scheme"),
    (
        '{ rewrite_location = { map = { "http://" = "https://a" } } }',
        "'https://a' is not a scheme such as 'https://', as 'http://' is",
    ),
    ('{ rewrite_location = { map = { "~[" = "/" } } }', "map.~[: '[' is not a regular expression"),
    (
        r"{ rewrite_location = { map = { '~a' = '/\1' } } }",
        "names the group 1, but the pattern has 0",
    ),
    ("{ rewrite_location = { map = { '~(a)' = '/{x}' } } }", "unknown placeholder {x}"),
    (
        "{ rewrite_cookies = { domain = {}, path = {} } }",
        "rewrite_cookies: changes nothing; set domain, path or flags",
    ),
    (
        '{ rewrite_cookies = { domain = { "a b" = "!" } } }',
        "domain.a b: 'a b' is not a domain such as 'example.com'",
    ),
    ('{ rewrite_cookies = { domain = { upstream = "/" } } }', "'/' is not a domain such as"),
    ('{ rewrite_cookies = { path = { "/" = "!" } } }', "'!' is not a path such as '/app'"),
    ('{ rewrite_cookies = { path = { "a" = "/" } } }', "path.a: 'a' is not a path such as '/app'"),
    ('{ rewrite_cookies = { path = { "/" = "/; Secure" } } }', "is not a path such as '/app'"),
    (
        "{ rewrite_cookies = { path = { '~(.*)' = '/; Secure' } } }",
        "'/; Secure' has a semicolon; set attributes by flags",
    ),
    ('{ rewrite_cookies = { path = { "~(" = "/" } } }', "path.~(: '(' is not a regular expression"),
    ("{ rewrite_cookies = { flags = { a = [] } } }", "flags.a: must not be empty"),
    ('{ rewrite_cookies = { flags = { a = ["safe"] } } }', "'safe' is not one of 'secure', "),
    (
        '{ rewrite_cookies = { flags = { a = ["secure", "nosecure"] } } }',
        "flags.a: 'secure' and 'nosecure' exclude each other",
    ),
    (
        '{ rewrite_cookies = { flags = { a = ["samesite=lax", "samesite=none"] } } }',
        "'samesite=lax' and 'samesite=none' exclude each other",
    ),
    (
        '{ rewrite_cookies = { flags = { "*" = ["secure"], a = ["secure"] } } }',
        "flags.a: is never reached: '*' before it is for all cookies",
    ),
    ('{ rewrite_cookies = { flags = { "a b" = ["secure"] } } }', "is not the name of a cookie"),
    ('{ rewrite_cookies = { flags = { "~(" = ["secure"] } } }', "'(' is not a regular expression"),
    ('{ rewrite = { path = "/x", add_prefix = "/y" } }', "add_prefix: has no effect with path"),
    ("{ headers = {} }", "changes nothing; set request or response"),
    ("{ headers = { request = {} } }", "changes nothing; set remove, set, default or add"),
    ('{ headers.request.remove = ["host"] }', "requests always have a host"),
    ('{ headers.response.set = { host = "x" } }', "can only be set, and only in requests"),
    ('{ headers.request.set = { "content-length" = "1" } }', "frames messages and is the edge's"),
    ('{ headers.request.add = { "Connection" = "1" } }', "frames messages and is the edge's own"),
    ('{ headers.request.set = { "a b" = "1" } }', "'a b' is not the name of a header field"),
    ('{ headers.response.add = { a = "ä" } }', "is not ASCII, as values of fields must be"),
    ('{ headers.response.add = { a = "{x}" } }', "has an unknown placeholder {x}"),
    ("{ compress = { encodings = [] } }", "compress.encodings: must not be empty"),
    ("{ compress = { types = ['html'] } }", "'html' is not a media type or text/*"),
    ("{ compress = { except_with = ['a b'] } }", "'a b' is not a name that can occur"),
    ("{ access = {} }", "lets everybody pass; set allow or deny"),
    ("{ access = { allow = ['10.0.0.1/8'] } }", "has host bits set; write '10.0.0.0/8'"),
    ("{ access = { allow = ['::1'], deny = ['::1'] } }", "access.deny[0]: '::1' is also in allow"),
    ("{ cors = {} }", "routes[0].filters[0].cors: origins is required"),
    ("{ cors = { origins = [] } }", "must not be empty; '*' stands for any"),
    ("{ cors = { origins = ['app.test'] } }", "is not an origin such as https://app.example.com"),
    ("{ cors = { origins = ['https://a.test/'] } }", "'https://a.test/' is not an origin"),
    ("{ cors = { origins = ['https://a.test', '*'] } }", "'*' stands for all others; remove them"),
    ("{ cors = { origins = ['*'], credentials = true } }", "not allowed with credentials"),
    ("{ cors = { origins = ['*'], headers = ['a b'] } }", "'a b' is not a name that can occur"),
    (
        "{ security_headers = { hsts_max_age = 0, hsts_subdomains = true } }",
        "hsts_subdomains: has no effect with hsts_max_age = 0",
    ),
    ("{ security_headers = { hsts_preload = true } }", "requires hsts_subdomains and a"),
    ("{ security_headers = { referrer_policy = 'ä' } }", "is not ASCII"),
    ("{ basic_auth = {} }", "lets nobody pass; set htpasswd or users"),
    ("{ basic_auth = { users = { ann = 'secret' } } }", "users.ann: is no bcrypt hash; create"),
    ("{ basic_auth = { htpasswd = 'x', realm = 'ä' } }", "basic_auth.realm: 'ä' is not ASCII"),
    ("{ basic_auth = { htpasswd = 'x', user_header = 'te' } }", "frames messages"),
    ("{ forward_auth = { upstream = 'ap' } }", "unknown upstream 'ap'; did you mean 'app'?"),
    ("{ forward_auth = { upstream = 'app', path = 'x' } }", "path: 'x' does not start with /"),
    ("{ forward_auth = { upstream = 'app', copy_headers = ['te'] } }", "frames messages"),
    ("{ forward_auth = { upstream = 'app', client_headers = ['content-length'] } }", "frames"),
    ("{ buffer = {} }", "buffers nothing; set request or response"),
    ("{ buffer = { request = true, max_size = 10 } }", "max_size: is less than memory (65536)"),
    ("{ error_pages = { pages = {} } }", "error_pages.pages: must not be empty"),
    ("{ error_pages = { pages = { 200 = 'x' } } }", "'200' is not an error such as 404 or 5xx"),
    (
        "{ maintenance = { allow = ['x'] } }",
        "maintenance.allow[0]: 'x' is neither an IP address nor",
    ),
]


SITES = [
    ("index = []", "index: must not be empty; omit the key for index.html"),
    ("index = ['a/b']", "index[0]: 'a/b' is not the name of a file"),
    ("fallback = 'index.html'", "fallback: 'index.html' is not a path such as /fallback.html"),
    ("cache_control = { '*' = 'ä' }", "'ä' is not the value of a field"),
    ("cache_control = { 'ä' = 'x' }", "'ä' is not ASCII"),
    ("mime_types = { '.js' = 'text/x' }", "'.js' is not an extension such as wasm, without a dot"),
    ("mime_types = { js = 'x' }", "'x' is not a media type such as application/wasm"),
    ("precompressed = ['deflate']", "'deflate' is not one of 'zstd', 'br', 'gzip'"),
    ("retries = 3", "upstreams.app.retries: has no effect with root"),
]


@pytest.mark.parametrize(("text", "message"), SITES)
def test_a_site_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "quicedge.toml"
    file.write_text(f"[upstreams.app]\nroot = '.'\n{text}\n[[routes]]\nupstream = 'app'\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert message in str(caught.value)
    assert "quicedge.toml:3: " in str(caught.value)


@pytest.mark.parametrize("origin", ["root = '.'", "asgi = 'main:app'"])
def test_limits_of_a_route_without_servers_are_refused(tmp_path: Path, origin: str) -> None:
    file = tmp_path / "quicedge.toml"
    file.write_text(
        f"[upstreams.app]\n{origin}\n[[routes]]\nupstream = 'app'\nretries = 2\n[[routes]]\n"
        "host = 'a.test'\nidle_timeout = 1\nfilters = [{ redirect = { to = '/' } }]\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert "toml:5: routes[0].retries: has no effect: the route has no servers" in str(caught.value)
    assert "toml:8: routes[1].idle_timeout: has no effect" in str(caught.value)


def test_keys_of_sites_are_refused_for_servers(tmp_path: Path) -> None:
    file = tmp_path / "quicedge.toml"
    file.write_text(HEAD.replace("[[routes]]", "listing = true\n[[routes]]") + 'upstream = "app"')
    with pytest.raises(ConfigError, match="listing: has no effect without root"):
        load_config(file)


def refusal(directory: Path, text: str) -> str:
    file = directory / "quicedge.toml"
    file.write_text(HEAD + text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, machine=False)
    return str(caught.value)


@pytest.mark.parametrize(("text", "message"), CONDITIONS)
def test_a_condition_is_refused(tmp_path: Path, text: str, message: str) -> None:
    found = refusal(tmp_path, f'upstream = "app"\n{text}')
    assert message in found
    assert "quicedge.toml:" in found


@pytest.mark.parametrize(("text", "message"), FILTERS)
def test_a_filter_is_refused(tmp_path: Path, text: str, message: str) -> None:
    found = refusal(tmp_path, f'upstream = "app"\nfilters = [{text}]\n')
    assert message in found
    assert "quicedge.toml:5: " in found


def test_a_problem_of_a_key_with_brackets_is_told_where_no_lines_are_known() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(
            "[[routes]]\nupstream = 'app'\n"
            "filters = [{ rewrite_cookies = { flags = { '~[' = ['secure'] } } }]"
        )
    assert "routes[0].filters[0].rewrite_cookies.flags.~[: '[' is not" in str(caught.value)


def test_a_route_goes_to_an_upstream_or_a_filter_that_answers(tmp_path: Path) -> None:
    answers = 'filters = [{ redirect = { to = "/x" } }]'
    told = refusal(tmp_path, 'host = "a.test"')
    assert "routes[0]: upstream or split is required, or a filter" in told
    assert "has no effect: a filter answers all" in refusal(
        tmp_path, f'upstream = "app"\n{answers}'
    )
    file = tmp_path / "quicedge.toml"
    file.write_text(f"[[routes]]\n{answers}")
    assert load_config(file, machine=False).routes[0].upstream is None
