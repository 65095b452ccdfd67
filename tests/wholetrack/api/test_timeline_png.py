"""The PNG picture of a timeline has the areas and the text of the SVG picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.api import timeline_png as module
from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.schemas import PredictionResponse, WindowDetail
from wholetrack.api.timeline_png import timeline_png
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline

pytestmark = pytest.mark.timing


@pytest.fixture(scope="module")
def content(
    pipeline: Pipeline, tune: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> PredictionResponse:
    song = tmp_path_factory.mktemp("song") / "song.wav"
    song.write_bytes(wav_bytes(tune, 22050))
    prediction = pipeline.predict(song, max_duration_s=60)
    source = SourceFile("Ünïcode <&> Ж.wav", sha256="", n_bytes=0, began=0.0)
    return prediction_response(prediction, source, top_k=1, detail=WindowDetail.FULL)


def pixels(png: bytes) -> NDArray[np.uint8]:
    images = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    return np.asarray(images.open(io.BytesIO(png)).convert("RGB"))


def test_the_picture_has_areas_and_text(content: PredictionResponse) -> None:
    png = timeline_png(content)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    drawn = pixels(png)
    assert drawn.shape == (480, 1200, 3)
    # The areas fill the middle, with one colour for each genre that has a share.
    colours, counts = np.unique(drawn[140:350, 100:1100].reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours[counts > 100]) >= 3
    ink = drawn.max(axis=2) < 128
    for top, bottom in ((30, 66), (80, 98), (434, 452)):
        assert ink[top:bottom].sum() > 100, "the verdict, the subtitle or the legend is missing"


def test_names_may_have_letters_beyond_ascii(content: PredictionResponse) -> None:
    """The font of the package has them, so the picture does not depend on the fonts of the system."""
    renamed = [
        content.model_copy(update={"track": content.track.model_copy(update={"filename": name})})
        for name in ("Ж.wav", "Ф.wav")
    ]
    assert timeline_png(renamed[0]) != timeline_png(renamed[1])


def test_a_picture_that_cannot_be_drawn_is_an_error(
    content: PredictionResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "timeline_svg", lambda _: "no picture")
    with pytest.raises(ServiceError, match="could not be drawn") as error:
        timeline_png(content)
    assert error.value.kind is ErrorKind.INTERNAL_ERROR


def test_a_picture_that_has_to_wait_too_long_is_refused(
    content: PredictionResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.01)
    with module._ONE_AT_A_TIME, pytest.raises(ServiceError, match="Try again") as error:
        timeline_png(content)
    assert error.value.kind is ErrorKind.OVERLOADED
    assert error.value.retry_after_s
