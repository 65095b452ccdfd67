"""How soon the network has answered for the first windows of a recording, for short ones and for long ones."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.harness.recordings import make_long_recording
from tests.harness.report import arguments, make_song, print_report, spread
from wholetrack.cancellation import Cancellation
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.engine import Engine
from wholetrack.inference.queue import Probabilities
from wholetrack.inference.session import Session, open_session
from wholetrack.pipeline import Pipeline, ServedModel
from wholetrack.settings import DeviceChoice, Settings

_MINUTES = {"3 minutes": 3, "2 hours": 120, "10 hours": 600}
_LONGEST_S = 40_000.0


class _Noting:
    """A session that ends the track as soon as it has answered."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.max_batch, self.window_shape, self.output_shape = (
            session.max_batch,
            session.window_shape,
            session.output_shape,
        )
        self.device, self.precision, self.memory = session.device, session.precision, session.memory
        self.answered = 0.0
        self.cancellation = Cancellation()

    def run(self, windows: NDArray[np.float32]) -> Probabilities:
        probabilities = self._session.run(windows)
        if not self.answered:
            self.answered = time.perf_counter()
            self.cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "The first answer was enough."))
        return probabilities


def seconds(bundle: Bundle, session: Session, decoder: FfmpegDecoder, recording: Path) -> float:
    """From the file to the first answer of the network."""
    noting = _Noting(session)
    served = ServedModel(bundle, Engine(noting))
    pipeline = Pipeline(
        decoder,
        {bundle.card.name: served},
        default_model=bundle.card.name,
        tracks_at_once=1,
        tracks_open=1,
        max_windows=10**6,
    )
    began = time.perf_counter()
    with suppress(ServiceError):
        pipeline.predict(recording, max_duration_s=_LONGEST_S, cancellation=noting.cancellation)
    pipeline.close()
    assert noting.cancellation.reason
    return noting.answered - began


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / "song.mp3"
        make_song(song)
        recordings = {title: folder / f"{minutes}.mp3" for title, minutes in _MINUTES.items()}
        for title, recording in recordings.items():
            make_long_recording(song, recording, _MINUTES[title])
        settings = Settings(device=DeviceChoice.CPU)
        bundle = load_bundles(BUILT_IN_MODELS)[settings.default_model]
        session, decoder = open_session(bundle, settings), FfmpegDecoder(find_ffmpeg())
        rounds = [
            {title: seconds(bundle, session, decoder, recording) for title, recording in recordings.items()}
            for _ in range(options.repeats + 1)
        ]
    figures = {title: spread([one[title] for one in rounds[1:]]) for title in _MINUTES}
    print_report("first_answer", {"first_answer_s": figures}, record=options.record)


if __name__ == "__main__":
    main()
