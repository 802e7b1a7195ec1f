"""Why directives are left out that have no counterpart, by their names."""

from __future__ import annotations

from typing import NamedTuple

from quicedge.migrate.effects import Effect
from quicedge.migrate.nginx import visible


class Reason(NamedTuple):
    """Why a directive is left out, and where that can be seen."""

    words: str
    effects: tuple[Effect, ...] = ()


UNUSED = Reason("nothing here uses it")
_ONE_FOR_ALL = Reason("quicedge has one for all requests, and takes none from here")
"""Of what counts in outer blocks alone."""
_NO_COUNTERPART = Reason("quicedge has no counterpart", visible.ANSWER)
_NOT_HTTP = Reason(
    "quicedge speaks HTTP to origins; put a server that does before the application",
    (visible.status("", 501),),
)
_NO_CACHE = Reason("quicedge has no cache", (*visible.ANSWER, visible.METHOD, visible.BODY))
_PYTHON = Reason("no counterpart; a Python filter can do it", visible.ANSWER)

_REASONS: tuple[tuple[Reason, str], ...] = (
    (
        Reason("a matter of nginx's own processes and memory"),
        """accept_mutex accept_mutex_delay aio aio_write connection_pool_size debug_points directio
        directio_alignment lingering_close lingering_time lingering_timeout lock_file
        map_hash_bucket_size map_hash_max_size master_process multi_accept open_log_file_cache
        output_buffers pcre_jit postpone_output preserve_output proxy_headers_hash_bucket_size
        proxy_headers_hash_max_size proxy_send_lowat read_ahead referer_hash_bucket_size
        referer_hash_max_size request_pool_size send_lowat sendfile sendfile_max_chunk
        server_names_hash_bucket_size server_names_hash_max_size ssl_certificate_cache
        ssl_object_cache_inheritable tcp_nodelay tcp_nopush thread_pool timer_resolution
        types_hash_bucket_size types_hash_max_size use variables_hash_bucket_size
        variables_hash_max_size worker_aio_requests worker_cpu_affinity worker_priority
        worker_rlimit_core working_directory""",
    ),
    (
        Reason("quicedge sizes its buffers itself"),
        """client_body_buffer_size client_body_in_file_only client_body_in_single_buffer
        client_body_temp_path client_header_buffer_size grpc_buffer_size gzip_buffers
        http2_body_preread_size http2_chunk_size http2_recv_buffer_size proxy_buffer_size
        proxy_buffers proxy_busy_buffers_size proxy_max_temp_file_size proxy_temp_file_write_size
        proxy_temp_path ssl_buffer_size subrequest_output_buffer_size brotli_buffers brotli_window
        zstd_buffers gzip_window gzip_hash postpone_gzipping""",
    ),
    (Reason("limits.max_connections is 20000 per worker"), "worker_connections"),
    (Reason("quicedge raises the limit of open files itself"), "worker_rlimit_nofile"),
    (Reason("quicedge stays in the foreground, as service managers want it"), "daemon"),
    (Reason("drain_timeout counts, 30 seconds by default"), "worker_shutdown_timeout"),
    (Reason("a module of nginx; quicedge's filters are written in Python"), "load_module"),
    (Reason("workers have the environment of the supervisor"), "env"),
    (Reason("qlog.addresses traces connections of clients"), "debug_connection"),
    (Reason("limits.max_uri is 16 KB, http3.max_field_section_size 64 KB",
            (visible.status(414), visible.status(400), visible.status("", 414),
             visible.status("", 431))),
     "large_client_header_buffers http2_max_field_size http2_max_header_size"),
    (Reason("quicedge opens files anew"),
     "open_file_cache open_file_cache_valid open_file_cache_min_uses open_file_cache_errors"),
    (Reason("what has timed out is reset"), "reset_timedout_connection"),
    (Reason("connections serve any number of requests"),
     "keepalive_requests keepalive_time http2_max_requests http3_max_requests"),
    (Reason("for browsers that no longer exist"),
     "keepalive_disable msie_padding msie_refresh gzip_disable"),
    (Reason("limits.keepalive_timeout counts"), "keepalive_min_timeout http2_idle_timeout"),
    (Reason("limits.header_timeout counts"), "http2_recv_timeout"),
    (Reason("HTTP/1.0 clients get responses as they are"), "gzip_http_version"),
    (Reason("names are resolved as the system does it"), "resolver resolver_timeout"),
    (Reason("quicedge offers no finite-field Diffie-Hellman"), "ssl_dhparam"),
    (Reason("private keys must not be encrypted: openssl pkey -in KEY -out NEW"),
     "ssl_password_file"),
    (Reason("OCSP responses are not stapled; public issuers have given OCSP up"),
     """ssl_stapling ssl_stapling_verify ssl_stapling_file ssl_stapling_responder
     ssl_trusted_certificate"""),
    (Reason("revocation lists are checked instead: crl of [[tls.client_auth]]"),
     "ssl_ocsp ssl_ocsp_cache ssl_ocsp_responder"),
    (Reason("chains of any length are accepted that verify"),
     "ssl_verify_depth proxy_ssl_verify_depth grpc_ssl_verify_depth"),
    (Reason("tls.policy and tls.groups decide"), "ssl_conf_command"),
    (Reason("quicedge's own keys of session tickets rotate: tls.shared_keys"),
     "ssl_session_ticket_key"),
    (Reason("quic.max_streams counts, 128 by default"),
     "http2_max_concurrent_streams http2_max_concurrent_pushes http3_max_concurrent_streams"),
    (Reason("browsers accept no pushed responses; see the filter early_hints"),
     "http2_push http2_push_preload"),
    (Reason("for tests of interoperability"), "http3_hq"),
    (Reason("quic.max_stream_data counts"), "http3_stream_buffer_size"),
    (Reason("quicedge does it wherever the kernel can"), "quic_gso quic_bpf"),
    (Reason("the secret of tokens is in state_directory"), "quic_host_key"),
    (Reason("quicedge decides"), "quic_active_connection_id_limit ssl_engine"),
    (Reason("what is chosen is shown by quicedge check --explain"), "rewrite_log"),
    (Reason("access records have members of their own: log.access_fields"), "log_format"),
    (Reason("files that do not exist are in the access log"), "log_not_found"),
    (Reason("requests of filters are not in the access log"), "log_subrequest"),
    (Reason("consecutive slashes are never merged", (*visible.ANSWER, visible.TARGET)),
     "merge_slashes"),
    (Reason("redirects of directories are relative", visible.client("location")),
     "absolute_redirect port_in_redirect server_name_in_redirect"),
    (Reason("files always have an ETag", visible.client("etag")), "etag"),
    (Reason("conditional requests are answered as RFC 9110 says",
            (visible.status(200, 304), visible.status(304, 200))),
     "if_modified_since"),
    (Reason("one range per request", (visible.status(206), visible.status("", 206))), "max_ranges"),
    (Reason("messages are framed as each version of HTTP wants it"),
     "chunked_transfer_encoding proxy_http_version grpc_http_version"),
    (Reason("invalid fields are refused", visible.ANSWER), "ignore_invalid_headers"),
    (Reason("links are followed if they are relative and stay below the root",
            (visible.status(403), visible.status("", 404))),
     "disable_symlinks"),
    (Reason("responses are not slowed down"), "limit_rate limit_rate_after"),
    (Reason("origins are not slowed down"), "proxy_limit_rate"),
    (Reason("refusals are logged at a bounded rate"), "limit_req_log_level limit_conn_log_level"),
    (Reason("no counterpart", (visible.status("", 429),)), "limit_req_dry_run limit_conn_dry_run"),
    (Reason("clients beyond the limit are refused before their request",
            (visible.status(503), visible.status(429))),
     "limit_conn_status"),
    (Reason("text files are always served as UTF-8", visible.client("content-type")),
     "charset charset_types"),
    (Reason("quicedge does not change what responses contain; a Python filter can",
            (visible.BODY, *visible.client("etag", "last-modified", "accept-ranges"))),
     """override_charset source_charset charset_map sub_filter sub_filter_once sub_filter_types
     sub_filter_last_modified add_before_body add_after_body addition_types ssi xslt_stylesheet
     image_filter"""),
    (Reason("the system chooses the address"), "proxy_bind grpc_bind"),
    (Reason("TLS 1.2 and 1.3 with Python's ciphers"),
     "proxy_ssl_ciphers proxy_ssl_protocols grpc_ssl_ciphers grpc_ssl_protocols"),
    (Reason("sessions with origins are not resumed"),
     "proxy_ssl_session_reuse grpc_ssl_session_reuse"),
    (Reason("quicedge shows origins no certificate", visible.ANSWER),
     """proxy_ssl_certificate proxy_ssl_certificate_key proxy_ssl_password_file
     grpc_ssl_certificate grpc_ssl_certificate_key grpc_ssl_password_file"""),
    (Reason("quicedge does not tell its version", visible.client("server")), "server_tokens"),
    (Reason("requests of all routes are logged"), "access_log"),
    (Reason("no counterpart"),
     """proxy_ssl_crl proxy_ssl_conf_command proxy_socket_keepalive recursive_error_pages
     uninitialized_variable_warn state post_action"""),
    (Reason("what an origin says of ranges is forwarded",
            (visible.status(206), visible.status("", 206))),
     "proxy_force_ranges"),
    (Reason("X-Accel-* fields have no meaning"), "proxy_ignore_headers"),
    (Reason("a request that its client gives up is given up at the origin too"),
     "proxy_ignore_client_abort"),
    (Reason("no counterpart; a Python filter can do it", (visible.METHOD,)), "proxy_method"),
    (Reason("no counterpart; a Python filter can do it", visible.origin("")),
     "proxy_pass_request_headers"),
    (Reason("no counterpart; a Python filter can do it", (visible.CONTENT,)),
     "proxy_set_body proxy_pass_request_body"),
    (_NO_CACHE,
     "proxy_store proxy_store_access slice proxy_no_cache"),
    (Reason(
        "the client is who connects, or whom the PROXY header names: proxy_protocol of `listen`",
        (*visible.ANSWER, *visible.origin("x-forwarded-for", "x-real-ip", "forwarded"))),
     "set_real_ip_from real_ip_header real_ip_recursive"),
    (Reason("routes can have conditions on the header referer", visible.ANSWER),
     "valid_referers"),
    (Reason("listings have sizes as people read them", (visible.BODY,)), "autoindex_exact_size"),
    (Reason("listings have times in UTC", (visible.BODY,)), "autoindex_localtime"),
    (Reason("`accept: application/json` gets a listing as JSON", (visible.BODY,)),
     "autoindex_format"),
    (Reason("no counterpart; a Python filter can do it", visible.client()), "add_trailer"),
    (Reason("files are served, and not taken", (visible.status("", 405),)),
     "dav_methods dav_access create_full_put_path min_delete_depth"),
    (Reason("the file is served as it is", (visible.BODY,)), "mp4 flv"),
    (Reason("quicedge proxies HTTP only"), "stream mail"),
    (Reason("each worker has its own view of the origins"), "zone"),
    (Reason("connections to origins are not bound to clients"), "ntlm"),
    (Reason("requests wait for a connection by themselves"), "queue"),
    (Reason("the admin API has figures: docs/observability.md", (visible.STATUS,)),
     "api status_zone status"),
    (Reason("wrong passwords take the time of a bcrypt hash"), "auth_delay"),
    (_PYTHON,
     "perl random_index empty_gif userid auth_jwt"),
)  # fmt: skip

_BY_NAME = {name: reason for reason, names in _REASONS for name in names.split()}

_BY_PREFIX: tuple[tuple[str, Reason], ...] = (
    ("proxy_cache", _NO_CACHE),
    ("fastcgi_", _NOT_HTTP),
    ("uwsgi_", _NOT_HTTP),
    ("scgi_", _NOT_HTTP),
    ("memcached_", _NOT_HTTP),
    ("more_", Reason("a module of third parties; see the filter headers", visible.ANSWER)),
    ("js_", _PYTHON),
    ("lua_", _PYTHON),
    ("perl_", _PYTHON),
    ("userid_", _PYTHON),
    ("secure_link", _PYTHON),
    ("geoip", _PYTHON),
    ("image_filter", Reason("quicedge does not change what responses contain", (visible.BODY,))),
    ("ssi_", Reason("quicedge does not change what responses contain", (visible.BODY,))),
    ("xslt_", Reason("quicedge does not change what responses contain", (visible.BODY,))),
    ("mp4_", Reason("the file is served as it is", (visible.BODY,))),
    ("otel_", Reason("[otel] exports spans", visible.origin("traceparent"))),
    ("health_check", Reason("health_path of the upstream", (visible.REACHED,))),
    ("mgmt", UNUSED),
)

_TRANSLATED = frozenset(
    (
        "add_header", "alias", "allow", "auth_basic", "auth_basic_user_file",
        "auth_request", "auth_request_set", "autoindex", "break", "brotli", "brotli_comp_level",
        "brotli_min_length", "brotli_static", "brotli_types", "client_body_timeout",
        "client_header_timeout", "client_max_body_size", "default_type", "deny", "error_log",
        "error_page", "expires", "geo", "grpc_connect_timeout", "grpc_hide_header",
        "grpc_intercept_errors", "grpc_next_upstream", "grpc_next_upstream_tries", "grpc_pass",
        "grpc_pass_header", "grpc_read_timeout", "grpc_send_timeout", "grpc_set_header",
        "grpc_socket_keepalive", "grpc_ssl_name", "grpc_ssl_server_name",
        "grpc_ssl_trusted_certificate", "grpc_ssl_verify", "gzip", "gzip_comp_level",
        "gzip_min_length", "gzip_proxied", "gzip_static", "gzip_types", "gzip_vary", "hash",
        "if", "include", "index", "internal", "ip_hash", "keepalive", "keepalive_timeout",
        "least_conn", "limit_conn", "limit_conn_zone", "limit_except", "limit_req",
        "limit_req_status", "limit_req_zone", "location", "map", "mirror",
        "mirror_request_body", "proxy_buffering", "proxy_connect_timeout", "proxy_cookie_domain",
        "proxy_cookie_flags", "proxy_cookie_path", "proxy_hide_header",
        "proxy_intercept_errors", "proxy_next_upstream", "proxy_next_upstream_timeout",
        "proxy_next_upstream_tries", "proxy_pass", "proxy_pass_header", "proxy_read_timeout",
        "proxy_redirect", "proxy_request_buffering", "proxy_send_timeout", "proxy_set_header",
        "proxy_ssl_name", "proxy_ssl_server_name", "proxy_ssl_trusted_certificate",
        "proxy_ssl_verify", "random", "return", "rewrite", "root", "satisfy", "send_timeout",
        "server", "server_name", "set", "split_clients", "ssl_certificate",
        "ssl_certificate_key", "ssl_ciphers", "ssl_client_certificate", "ssl_crl",
        "ssl_early_data", "ssl_ecdh_curve", "ssl_prefer_server_ciphers", "ssl_protocols",
        "ssl_session_cache", "ssl_session_tickets", "ssl_session_timeout", "ssl_verify_client",
        "sticky", "try_files", "types", "upstream",
    )
)  # fmt: skip
"""Directives that are translated where they count; where none counts, nothing uses them."""

_FOR_ALL = frozenset(("client_body_timeout", "client_header_timeout", "error_log"))


def reason(name: str) -> Reason:
    """Why a directive is left out that nothing has been written down of."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name in _FOR_ALL:
        return _ONE_FOR_ALL
    if name in _TRANSLATED:
        return UNUSED
    if name.endswith(("_by_lua", "_by_lua_block", "_by_lua_file")):
        return _PYTHON
    return next((why for prefix, why in _BY_PREFIX if name.startswith(prefix)), _NO_COUNTERPART)
