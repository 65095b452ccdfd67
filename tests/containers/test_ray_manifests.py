"""The pods of the manifests for KubeRay, checked against the schemas of Kubernetes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.harness.commands import run
from tests.harness.paths import PROJECT

pytestmark = pytest.mark.docker

_VALIDATE = Path(sys.prefix) / "containers" / "bin" / "kubernetes-validate"


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the pods of both manifests, as documents that Kubernetes has a schema for."""
    documents = []
    for name in ("service", "job"):
        spec = yaml.safe_load((PROJECT / "deploy/ray/kubernetes" / f"{name}.yaml").read_text())["spec"]
        cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
        pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        documents += [
            {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": f"{name}-{i}"},
                "template": pod["template"],
            }
            for i, pod in enumerate(pods)
        ]
    file = tmp_path_factory.mktemp("ray") / "templates.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return file


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_pods_match_the_published_schemas(templates: Path, version: str) -> None:
    run(str(_VALIDATE), "--strict", "--kubernetes-version", version, str(templates))
    broken = templates.with_name("broken.yaml")
    broken.write_text(templates.read_text().replace("runAsNonRoot", "runAsNobody"))
    command = [str(_VALIDATE), "--strict", "--kubernetes-version", version, str(broken)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
