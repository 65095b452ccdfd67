"""Every fault for some seconds; `make chaos` does each for a minute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.chaos.campaign import recordings, survive
from tests.chaos.faults import FAULTS
from tests.chaos.soak import Look, growth_of, soak

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
    # The fault did happen. Whom it hits is up to chance: who stops for a moment may be missed by nobody.
    harmed = {code: count for code, count in survived.outcomes.items() if code != "ok"}
    assert harmed or survived.hits


def test_nothing_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form of `make soak`, which needs half an hour to tell growth from warming up: memory is not judged."""
    monkeypatch.setattr("tests.chaos.soak._NOISE_MIB", 1e6)
    soaked = soak(minutes=0.25)
    assert soaked.wrong == ()
    assert soaked.outcomes["ok"] > 0
    assert soaked.outcomes["left"] > 0
    assert soaked.outcomes["unsupported_media"] > 0


@pytest.mark.parametrize(("per_s", "grows"), [(0.0, False), (0.5, True)])
def test_growth_is_told_from_noise(per_s: float, grows: bool) -> None:  # noqa: FBT001 - of a test
    rng = np.random.default_rng(0)
    looks = [Look(at, 200 + per_s * at + rng.normal(0, 5), 20, 20) for at in np.arange(0, 100, 1.0).tolist()]
    growth, error = growth_of(looks)
    assert (growth > 3 * error) == grows
    assert growth == pytest.approx(99 * per_s, abs=3 * error)
