"""The configuration of Serve and the manifests for KubeRay, checked without a cluster.

KubeRay publishes its schemas in no registry, so :data:`_SCHEMA` describes the fields that the manifests use, as in the
reference of its API (ray.io/v1). `make containers` validates the pods against the schemas of Kubernetes.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from tests.harness.paths import PROJECT
from wholetrack.ray import serve
from wholetrack.settings import PREFIX, Settings

_DEPLOY = PROJECT / "deploy" / "ray"
_CONFIG = _DEPLOY / "serve" / "config.yaml"
_MANIFESTS = {"RayService": _DEPLOY / "kubernetes" / "service.yaml", "RayJob": _DEPLOY / "kubernetes" / "job.yaml"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
_TEXTS, _POD = {"type": "object", "additionalProperties": _TEXT}, {"type": "object", "required": ["spec"]}
_CLUSTER = _object(
    {
        "headGroupSpec": _object({"rayStartParams": _TEXTS, "template": _POD}, serviceType=_TEXT),
        "workerGroupSpecs": {
            "type": "array",
            "items": _object(
                {
                    "groupName": _TEXT,
                    "minReplicas": _NUMBER,
                    "maxReplicas": _NUMBER,
                    "rayStartParams": _TEXTS,
                    "template": _POD,
                },
                replicas=_NUMBER,
            ),
        },
    },
    rayVersion=_TEXT,
    enableInTreeAutoscaling=_FLAG,
)
_SPECS = {
    "RayService": _object({"serveConfigV2": _TEXT, "rayClusterConfig": _CLUSTER}),
    "RayJob": _object(
        {"entrypoint": _TEXT, "rayClusterSpec": _CLUSTER},
        runtimeEnvYAML=_TEXT,
        backoffLimit=_NUMBER,
        shutdownAfterJobFinishes=_FLAG,
        ttlSecondsAfterFinished=_NUMBER,
    ),
}


def manifest(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(_MANIFESTS[kind].read_text())
    return document


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document["spec"]
    cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def test_serve_accepts_its_configuration_and_the_application_has_its_deployments() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(_CONFIG.read_text()))
    (application,) = config.applications
    assert application.import_path == "wholetrack.ray.serve:app"
    ingress = serve.app._bound_deployment
    names = {ingress.name, *(argument._bound_deployment.name for argument in ingress.init_args)}
    assert {deployment.name for deployment in application.deployments} == names


def test_the_configuration_uses_settings_that_exist() -> None:
    (application,) = yaml.safe_load(_CONFIG.read_text())["applications"]
    variables = application["runtime_env"]["env_vars"]
    assert {name.removeprefix(PREFIX).lower() for name in variables} <= set(Settings.model_fields)
    assert variables["WHOLETRACK_SANDBOX"] == "required"


def test_requests_may_take_as_long_as_the_settings_allow_when_replicas_stop() -> None:
    (application,) = yaml.safe_load(_CONFIG.read_text())["applications"]
    periods = {one["name"]: one["graceful_shutdown_timeout_s"] for one in application["deployments"]}
    timeout_s = Settings(_env_file=None).request_timeout_s
    assert periods["ingress"] > timeout_s
    assert periods["analysis"] > timeout_s
    for pod in pods(manifest("RayService")):
        assert pod["spec"]["terminationGracePeriodSeconds"] > max(periods.values())


@pytest.mark.parametrize("kind", _MANIFESTS)
def test_manifests_have_the_fields_of_kuberay(kind: str) -> None:
    document = manifest(kind)
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
    jsonschema.validate(document["spec"], _SPECS[kind])
    document["spec"]["unknown"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document["spec"], _SPECS[kind])


def test_the_service_on_kuberay_has_the_same_configuration() -> None:
    assert yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"]) == yaml.safe_load(_CONFIG.read_text())


@pytest.mark.parametrize("kind", _MANIFESTS)
def test_pods_are_hardened(kind: str) -> None:
    for pod in pods(manifest(kind)):
        spec = pod["spec"]
        # Otherwise Kubernetes would set WHOLETRACK_PORT to the address of a Service.
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"])
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/dev/shm", "/tmp"}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
