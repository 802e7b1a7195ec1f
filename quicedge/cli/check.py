"""`quicedge check`: show what a configuration does, and check it on this machine."""

from __future__ import annotations

import sys

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from quicedge.acme.names import wanted
from quicedge.cli import findings
from quicedge.cli.destinations import upstreams_text
from quicedge.cli.explain import explain, parse_supposed
from quicedge.cli.findings.finding import Level
from quicedge.cli.options import Options, config_options, make_config
from quicedge.config.addresses import parse_resolver
from quicedge.config.certificate_files import has_certificates
from quicedge.config.host_port import HostPort
from quicedge.config.listeners import listeners, redirecting
from quicedge.config.routes import filters_of, route_text, upstreams_of
from quicedge.config.schema import Config, Route

_STYLE = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.OK: "green"}


def parse_resolvers(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> list[HostPort] | None:
    """The value of `--resolver`; None: it is not given."""
    found = []
    for text in given:
        try:
            found.append(parse_resolver(text))
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return found or None


@click.command()
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON.")
@click.option(
    "--no-machine",
    "file_alone",
    is_flag=True,
    help="Check the file alone, without this machine (as `quicedge validate`).",
)
@click.option(
    "--resolver",
    "resolvers",
    multiple=True,
    metavar="ADDRESS",
    callback=parse_resolvers,
    help="DNS server to ask for HTTPS records, address or address:port (repeatable) "
    "[default: those of /etc/resolv.conf].",
)
@click.option(
    "--explain",
    "request",
    metavar="'GET https://HOST/PATH'",
    help="Only show which route a request takes, and why; exits with 1 if there is none.",
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header field of the request to explain (repeatable).",
)
@click.option("--client", metavar="ADDRESS", help="Who sends the request to explain.")
@click.option(
    "--protocol",
    type=click.Choice(["h3", "h2", "http/1.1"]),
    default="h3",
    show_default=True,
    help="The protocol of the request to explain.",
)
def command(
    options: Options,
    as_json: bool,
    file_alone: bool,
    resolvers: list[HostPort] | None,
    request: str | None,
    headers: tuple[str, ...],
    client: str | None,
    protocol: str,
) -> None:
    """Check a configuration on this machine; exits with 1 on errors.

    As root, checks run as the user that workers run as. Resources held by an edge that is already
    running with the same configuration are not reported as conflicts.
    """
    config = make_config(options, machine=False)
    if request is not None:
        lines, is_routed = explain(config, parse_supposed(request, headers, client, protocol))
        click.echo("\n".join(lines))
        sys.exit(not is_routed)
    found = [] if file_alone else findings.examine(config, options.path, resolvers)
    show(config, found, as_json=as_json)


def show(config: Config, found: list[findings.Finding], *, as_json: bool) -> None:
    """Print the plan and the findings, and exit with 1 if there are errors."""
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1))
    else:
        _print(config, found)
    sys.exit(any(finding.level is Level.ERROR for finding in found))


def _print(config: Config, found: list[findings.Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]Plan[/bold]")
    for line in plan(config):
        console.print(f"  {escape(line)}")
    if found:
        console.print("\n[bold]On this machine[/bold]")
    for finding in found:
        style = _STYLE[finding.level]
        console.print(
            f"  [{style}]{finding.level:<7}[/{style}] {escape(finding.subject)}: "
            f"{escape(finding.message)}"
        )
        if finding.remedy:
            console.print(f"          -> {escape(finding.remedy)}")


def describe_route(config: Config, route: Route) -> str:
    """Where the requests of a route go, and what filters they pass."""
    entries = filters_of(config, route)
    kinds = [entry.kind for entry in entries]
    if not upstreams_of(route):
        return f"answer {route_text(route)} by {', '.join(kinds)}"
    through = f" through {', '.join(kinds)}" if kinds else ""
    return f"send {route_text(route)}{through} to {upstreams_text(config, route)}"


def plan(config: Config) -> list[str]:
    """What the edge does with this configuration, one item per line."""
    lines = [
        f"listen on {' and '.join(item.transports)} {item.address}: {', '.join(item.protocols)}"
        for item in listeners(config)
    ]
    for item in listeners(config):
        if item.proxy_protocol is not None:
            lines.append(
                f"take the clients of {item.address} on TCP from the PROXY headers of "
                + ", ".join(item.proxy_protocol)
            )
    lines += [
        f"redirect plain HTTP on {redirect.address} to https"
        + ("" if redirect.proxy_protocol is None else ", clients as PROXY headers name them")
        for redirect in redirecting(config)
    ]
    lines.append(f"run {config.workers} worker(s)")
    for certificate in config.tls.certificates:
        several = "certificates" if "*" in certificate.cert else "certificate"
        lines.append(f"serve the {several} {certificate.cert}")
    for directory in config.tls.certificate_directories:
        lines.append(f"serve the certificates in {directory}")
    if config.tls.acme is not None:
        lines.append(f"order certificates by ACME for {', '.join(wanted(config)) or 'no host'}")
    elif not has_certificates(config.tls):
        lines.append("create a development certificate under certs/")
    for route in config.routes:
        lines.append(describe_route(config, route))
    lines.append(
        f"address validation by Retry: {config.quic.retry}; "
        f"congestion control: {config.quic.congestion_control}"
    )
    if config.admin.enabled:
        lines.append(f"serve the admin API on {config.admin.listen}")
    return lines
