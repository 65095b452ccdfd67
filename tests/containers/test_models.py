"""The user's own bundles, mounted with docker/models.yml."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.harness.compose import ComposeProject, compose_project
from tests.harness.paths import PROJECT

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

_FOLDS = PROJECT / "tests" / "folds"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    folder = tmp_path_factory.mktemp("compose")
    files = ("docker-compose.yml", "docker/models.yml")
    with compose_project("wholetrack-models", 18325, folder, *files, WHOLETRACK_MODELS=str(_FOLDS)) as project:
        project.compose("build", "wholetrack")
        project.up("wholetrack")
        yield project


def test_mounted_bundles_are_served_together_with_those_in_the_image(project: ComposeProject) -> None:
    served = {model["name"] for model in httpx.get(f"{project.url}/v1/models").json()["models"]}
    in_the_image = {folder.name for folder in (PROJECT / "models").iterdir()}
    mounted = {folder.name for folder in _FOLDS.iterdir()}
    assert served == in_the_image | mounted
