"""The colours of the genres: different for everyone, also for the colour-blind."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType

import numpy as np
import pytest

from tests.harness.paths import PROJECT


@pytest.fixture(scope="module")
def palette() -> ModuleType:
    spec = importlib.util.spec_from_file_location("palette", PROJECT / "page" / "palette.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def colours(palette: ModuleType) -> list[str]:
    listed: list[str] = json.loads(palette.TARGET.read_text())
    return listed


@pytest.mark.parametrize(("n", "least"), [(10, 0.1), (16, 0.07), (25, 0.05)])
def test_any_two_colours_differ_for_the_colour_blind(palette: ModuleType, n: int, least: float) -> None:
    """The unit is that of OKLab, in which black and white differ by 1 and just noticeable differences are 0.02."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours(palette)])
    distance = palette.differences(palette.to_linear(rgb))[:n, :n]
    assert distance[~np.eye(n, dtype=bool)].min() >= least


def test_the_palette_is_what_the_program_chooses(palette: ModuleType) -> None:
    chosen = palette.choose(palette.N_COLOURS, "#3b6fd4")
    assert [palette.to_hex(colour) for colour in chosen] == colours(palette)
