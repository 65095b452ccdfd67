"""Every fault for a few seconds; `make chaos` injects each for a minute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.chaos.campaign import run_fault
from tests.chaos.faults import FAULTS
from tests.chaos.recordings import make_recordings
from tests.chaos.soak import Sample, memory_growth, soak

_SECONDS = 4.0


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    return make_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.mark.parametrize("name", FAULTS)
def test_the_service_survives_a_fault(recordings: Mapping[str, bytes], name: str) -> None:
    try:
        result = run_fault(FAULTS[name], seconds=_SECONDS, recordings=recordings)
    except PermissionError as error:
        pytest.skip(str(error))
    assert result.problems == ()
    assert result.outcomes["ok"] > 0
    # The fault must have happened. Which requests it affects is random, as a process may not be needed when it stops.
    affected = {outcome: count for outcome, count in result.outcomes.items() if outcome != "ok"}
    assert affected or result.injections


def test_mixed_traffic_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form of `make soak`. Memory is not checked: that takes half an hour to stop growing after the start."""
    monkeypatch.setattr("tests.chaos.soak._NOISE_MIB", 1e6)
    result = soak(minutes=0.25)
    assert result.problems == ()
    assert result.outcomes["ok"] > 0
    assert result.outcomes["disconnected"] > 0
    assert result.outcomes["unsupported_media"] > 0


@pytest.mark.parametrize(("per_s", "grows"), [(0.0, False), (0.5, True)])
def test_growth_is_distinguished_from_noise(per_s: float, grows: bool) -> None:  # noqa: FBT001 - a test parameter
    rng = np.random.default_rng(0)
    samples = [Sample(at, 200 + per_s * at + rng.normal(0, 5)) for at in np.arange(0, 100, 1.0).tolist()]
    growth, error = memory_growth(samples)
    assert (growth > 3 * error) == grows
    assert growth == pytest.approx(99 * per_s, abs=3 * error)
