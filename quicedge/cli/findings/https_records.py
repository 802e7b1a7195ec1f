"""The HTTPS records that advertise HTTP/3 to clients before their first connection (RFC 9460).

Alt-Svc is learnt from a first response over TCP; clients that find an HTTPS record in DNS begin
with QUIC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from quicedge.cli.dns.message import DnsError, HttpsRecord
from quicedge.cli.dns.resolver import Answer, look_up, system_resolvers
from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.certificate_files import certificate_files
from quicedge.config.host_port import HostPort
from quicedge.config.limits import HTTPS_RECORD_NAMES, HTTPS_RECORD_TTL
from quicedge.config.listeners import HTTPS_PORT, listeners
from quicedge.config.routes import hosts_of
from quicedge.config.schema import Config
from quicedge.quic.tls import CertificateError, parse_certificate, read_certificate


class Service(NamedTuple):
    """What clients of the edge's hosts are to know."""

    port: int
    """Of URLs."""
    quic_port: int
    protocols: tuple[str, ...]
    """In order of preference, HTTP/3 among them."""

    def owner(self, host: str) -> str:
        """The name that clients look up (section 2.3)."""
        return host if self.port == HTTPS_PORT else f"_{self.port}._https.{host}"

    def records(self, host: str) -> list[str]:
        """What to publish, as lines of a zone."""
        target = "." if self.port == HTTPS_PORT else f"{host}."
        tcp = tuple(name for name in self.protocols if name != "h3")
        if self.quic_port == self.port or not tcp:
            groups = [(self.protocols, self.quic_port)]
        else:
            groups = [(("h3",), self.quic_port), (tcp, self.port)]
        lines = []
        for priority, (protocols, port) in enumerate(groups, 1):
            # Clients take HTTP/1.1 for granted unless a record denies it (section 7.1.2).
            named = ",".join(name for name in protocols if name != "http/1.1")
            parameters = f'alpn="{named}"' if named else ""
            if "http/1.1" not in protocols:
                parameters += " no-default-alpn"
            if port != self.port:
                parameters += f" port={port}"
            line = f"{self.owner(host)}. {HTTPS_RECORD_TTL} IN HTTPS {priority} {target}"
            lines.append(f"{line} {parameters.strip()}".rstrip())
        return lines

    def says(self, record: HttpsRecord) -> bool:
        """Whether a published record leads to our HTTP/3."""
        return "h3" in record.alpn and (record.port or self.port) == self.quic_port


def of_config(config: Config, resolvers: Sequence[HostPort] | None = None) -> Iterator[Finding]:
    """Say for each host what to publish, and whether it is. Default: this machine's resolvers."""
    service = _service(config)
    if service is None:
        return
    hosts = _hosts(config, service)
    if not hosts:
        return
    asked = [service.owner(host) for host in hosts[:HTTPS_RECORD_NAMES]]
    found = look_up(asked, system_resolvers() if resolvers is None else resolvers)
    for host in hosts:
        yield _finding(host, service, found.get(service.owner(host), DnsError("too many hosts")))


def _finding(host: str, service: Service, answer: Answer) -> Finding:
    subject = f"HTTPS record of {host}"
    publish = f"publish {' and '.join(service.records(host))}"
    if isinstance(answer, DnsError):
        return Finding(Level.OK, subject, f"not looked up: {answer}", publish)
    if any(service.says(record) for record in answer):
        return Finding(Level.OK, subject, "published: clients may begin with HTTP/3")
    aliases = [record.target for record in answer if record.priority == 0]
    if aliases:
        return Finding(Level.OK, subject, f"published: an alias of {aliases[0] or 'nothing'}")
    if not answer:
        message = "not published: clients begin with TCP and learn of HTTP/3 from Alt-Svc"
        return Finding(Level.OK, subject, message, publish)
    ports = sorted({record.port or service.port for record in answer if "h3" in record.alpn})
    if ports:
        message = f"published for port {ports[0]}, where HTTP/3 is not served"
    else:
        message = "published without h3: clients that trust it begin with TCP"
    return Finding(Level.WARNING, subject, message, publish)


def _service(config: Config) -> Service | None:
    """What is served where; None: HTTP/3 is not served, or not to be advertised."""
    offered = [(HostPort.parse(item.address).port, item) for item in listeners(config)]
    quic = [port for port, item in offered if item.quic and port]
    tcp = [port for port, item in offered if item.tcp_protocols and port]
    if not quic or not config.alt_svc.enabled:
        return None
    advertised = config.alt_svc.port
    # Where HTTP/3 is advertised on port 443, ports are translated on the way, those of TCP too.
    port = HTTPS_PORT if HTTPS_PORT in (*tcp, advertised) else (tcp or quic)[0]
    quic_port = advertised or (port if port in quic else quic[0])
    protocols = dict.fromkeys(name for _, item in offered for name in item.protocols)
    return Service(port, quic_port, ("h3", *(name for name in protocols if name != "h3")))


def _hosts(config: Config, service: Service) -> list[str]:
    """Names that routes serve; where they serve any, those of the certificates."""
    hosts = dict.fromkeys(host for route in config.routes for host in hosts_of(route))
    if "*" in hosts:
        hosts |= dict.fromkeys(_certified(config))
    return [host.removesuffix(".") for host in hosts if _is_public(host, service)]


def _certified(config: Config) -> Iterator[str]:
    for certificate in certificate_files(config.tls):
        try:
            pem = read_certificate(certificate.cert, certificate.key, private=False)
            yield from sorted(parse_certificate(pem).names)
        except CertificateError:
            continue  # reported where certificates are checked


def _is_public(host: str, service: Service) -> bool:
    """Whether DNS can have a record for it; wildcards match whole labels alone."""
    return (
        "." in host.strip(".")
        and not host.endswith((".localhost", ".local", ".internal"))
        and HostPort(host, 0).ip is None
        and ("*" not in host or service.port == HTTPS_PORT)
    )
