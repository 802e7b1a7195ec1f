"""The manifests of deploy/kubernetes: valid for the API server, and consistent with the program."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from quicedge.config import limits
from quicedge.config.loader import parse_config
from quicedge.config.schema import Config

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
BASE, DAEMONSET = KUBERNETES / "base", KUBERNETES / "overlays" / "daemonset"
DOCKERFILE = KUBERNETES.parent / "Dockerfile"
MANIFESTS = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")
VERSIONS = ("1.29", "1.37")
"""The oldest and the newest that the manifests are for."""
USER = 10001


def documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all(path.read_text())


def manifest(name: str, directory: Path = BASE) -> dict[str, Any]:
    (found,) = documents(directory / f"{name}.yaml")
    return found


def workloads() -> list[dict[str, Any]]:
    return [manifest("deployment"), manifest("daemonset", DAEMONSET)]


def config() -> Config:
    path = BASE / "quicedge.toml"
    document = tomllib.loads(path.read_text())
    return parse_config(document, str(path), BASE, machine=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_api_server_takes_every_manifest(path: Path, version: str) -> None:
    for document in documents(path):
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            assert document["spec"].keys() == {"selector", "endpoints"}
            continue
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("directory", [BASE, DAEMONSET], ids=["base", "daemonset"])
def test_the_kustomization_names_every_file_and_no_other(directory: Path) -> None:
    (kustomization,) = documents(directory / "kustomization.yaml")
    assert kustomization["kind"] == "Kustomization"
    assert [image["name"] for image in kustomization["images"]] == ["quicedge"]
    there = {path.name for path in directory.glob("*.yaml")} - {"kustomization.yaml"}
    named = set(kustomization["resources"])
    assert {name for name in named if "/" not in name} == there
    for generator in kustomization.get("configMapGenerator", ()):
        for name in generator["files"]:
            assert (directory / name).is_file()
    known = {(item["kind"], item["metadata"]["name"]) for path in MANIFESTS
             for item in documents(path)}  # fmt: skip
    for patch in kustomization.get("patches", ()):
        target = patch["target"]
        assert (target["kind"], target["name"]) in known
        assert yaml.safe_load(patch["patch"])["$patch"] == "delete"


@pytest.mark.parametrize("workload", workloads(), ids=lambda item: str(item["kind"]))
def test_pods_run_unprivileged_as_the_user_of_the_image(workload: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert f"USER {USER}\n" in DOCKERFILE.read_text()
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == USER
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["args"] == ["serve", "--config", "/etc/quicedge/quicedge.toml"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("workload", workloads(), ids=lambda item: str(item["kind"]))
def test_ports_files_and_probes_are_those_of_the_configuration(workload: dict[str, Any]) -> None:
    edge, pod = config(), workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port for port in container["ports"]}
    assert isinstance(edge.listen[0], str)
    listen = int(edge.listen[0].rpartition(":")[2])
    assert ports["quic"]["containerPort"] == ports["https"]["containerPort"] == listen
    assert (ports["quic"]["protocol"], ports["https"]["protocol"]) == ("UDP", "TCP")
    assert edge.redirect_http == [f"0.0.0.0:{ports['http']['containerPort']}"]
    assert edge.admin.listen == f"0.0.0.0:{ports['admin']['containerPort']}"
    for probe, path in (
        ("startupProbe", "/healthz"), ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ):  # fmt: skip
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    certificate = edge.tls.certificates[0]
    for file in (
        certificate.cert, certificate.key, edge.tls.shared_keys, edge.fleet.secret_file,
        edge.admin.token_file, edge.control_socket,
    ):  # fmt: skip
        assert file is not None
        assert any(file.startswith(f"{mount}/") for mount in mounts), file
    assert edge.fleet.server_id == "address"
    assert container["env"][0]["name"] == "POD_IP"


@pytest.mark.parametrize("workload", workloads(), ids=lambda item: str(item["kind"]))
def test_pods_have_the_time_to_drain(workload: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]
    (command,) = [item["lifecycle"]["preStop"]["exec"]["command"] for item in pod["containers"]]
    needed = float(command[1]) + config().drain_timeout + limits.STOP_GRACE
    assert pod["terminationGracePeriodSeconds"] > needed


def test_one_address_takes_both_transports() -> None:
    service = manifest("service")["spec"]
    ports = {(port["port"], port["protocol"]) for port in service["ports"]}
    assert {(443, "UDP"), (443, "TCP")} <= ports
    assert service["externalTrafficPolicy"] == "Local"
    assert config().alt_svc.port == 443, "clients know the port of the Service, not that of pods"


def test_pods_find_each_other_also_while_they_drain() -> None:
    peers = manifest("peers")
    assert peers["spec"]["publishNotReadyAddresses"] is True
    assert peers["spec"]["clusterIP"] == "None"
    name, port = peers["metadata"]["name"], peers["spec"]["ports"][0]["port"]
    assert config().fleet.peers == [f"{name}:{port}"]


def test_everything_selects_the_pods() -> None:
    for workload in workloads():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        wanted = workload["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= labels.items()
        for selector in (
            manifest("service")["spec"]["selector"],
            manifest("peers")["spec"]["selector"],
            manifest("disruption-budget")["spec"]["selector"]["matchLabels"],
        ):
            assert selector.items() <= labels.items()


def test_the_autoscaler_and_the_monitor_go_by_what_the_edge_exports() -> None:
    source = (KUBERNETES.parents[1] / "quicedge" / "admin" / "metrics.py").read_text()
    metrics = manifest("autoscaler")["spec"]["metrics"]
    assert [item["type"] for item in metrics] == ["Resource", "Pods"]
    assert f'"{metrics[1]["pods"]["metric"]["name"]}"' in source
    (endpoint,) = manifest("service-monitor")["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in manifest("peers")["spec"]["ports"]}


def test_the_image_says_whether_it_is_healthy() -> None:
    text = DOCKERFILE.read_text()
    found = re.search(r"HEALTHCHECK [^\n]*\\\n    CMD \[(.*)\]", text)
    assert found is not None
    assert found[1].split(", ")[:2] == ['"/opt/quicedge/bin/quicedge"', '"status"']
