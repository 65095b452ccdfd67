"""Every fault for some seconds; `make chaos` does each for a minute."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.chaos.campaign import recordings, survive
from tests.chaos.faults import FAULTS

_SECONDS = 4.0


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    return recordings(tmp_path_factory.mktemp("recordings"))


@pytest.mark.parametrize("name", FAULTS)
def test_what_dies_takes_nothing_with_it(contents: Mapping[str, bytes], name: str) -> None:
    try:
        survived = survive(FAULTS[name], seconds=_SECONDS, contents=contents)
    except PermissionError as error:
        pytest.skip(str(error))
    assert survived.wrong == ()
    assert survived.outcomes["ok"] > 0
    # The fault did happen: somebody was told so, or the process ended, or clients left.
    harmed = {code: count for code, count in survived.outcomes.items() if code != "ok"}
    assert harmed or survived.restarts
