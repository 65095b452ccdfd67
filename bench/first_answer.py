"""Time until the network has classified the first windows of a recording, for short and for long recordings."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

from bench.records import benchmark_parser
from bench.song import make_song
from bench.spread import spread
from tests.harness.recordings import make_long_recording
from tests.harness.records import print_record
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import Rows, Windows
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.extraction.workers import FeatureWorkers
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.engine import Engine
from wholetrack.inference.session import Session, open_session
from wholetrack.pipeline import Pipeline
from wholetrack.served_model import ServedModel
from wholetrack.settings import DeviceChoice, Settings

_MINUTES = {"3 minutes": 3, "2 hours": 120, "10 hours": 600}
_MAX_DURATION_S = 40_000.0


class _FirstBatch:
    """A session that cancels the track after the first batch and notes the time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.max_batch = session.max_batch
        self.window_shapes, self.output_shapes = session.window_shapes, session.output_shapes
        self.device, self.precision, self.memory = session.device, session.precision, session.memory
        self.finished_at = 0.0
        self.cancellation = Cancellation()

    def run(self, windows: Windows) -> Rows:
        outputs = self._session.run(windows)
        if not self.finished_at:
            self.finished_at = time.perf_counter()
            self.cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "Only the first batch is measured."))
        return outputs


def first_result_s(
    bundle: Bundle, session: Session, decoder: FfmpegDecoder, workers: FeatureWorkers, recording: Path
) -> float:
    """Return the time from opening the file to the first output of the network, in seconds."""
    first_batch = _FirstBatch(session)
    served = ServedModel(bundle, Engine(first_batch))
    pipeline = Pipeline(
        decoder,
        workers,
        {bundle.card.name: served},
        default_model=bundle.card.name,
        tracks_at_once=1,
        tracks_open=dict.fromkeys(DecoderMemory, 1),
        max_windows=10**6,
    )
    began = time.perf_counter()
    with suppress(ServiceError):
        pipeline.predict(recording, max_duration_s=_MAX_DURATION_S, cancellation=first_batch.cancellation)
    served.engine.close()
    assert first_batch.cancellation.reason
    return first_batch.finished_at - began


def measure(folder: Path, repeats: int) -> dict[str, object]:
    """Measure every length in turn; the first round warms up."""
    song = folder / "song.mp3"
    make_song(song)
    recordings = {title: folder / f"{minutes}.mp3" for title, minutes in _MINUTES.items()}
    for title, recording in recordings.items():
        make_long_recording(song, recording, _MINUTES[title])
    settings = Settings(device=DeviceChoice.CPU)
    bundle = load_bundles(BUILT_IN_MODELS)[settings.default_model]
    session, decoder = open_session(bundle, settings), FfmpegDecoder(find_ffmpeg())
    with closing(decoder), closing(FeatureWorkers(1, max_tracks=1)) as workers:
        rounds = [
            {title: first_result_s(bundle, session, decoder, workers, path) for title, path in recordings.items()}
            for _ in range(repeats + 1)
        ]
    return {title: spread([one[title] for one in rounds[1:]]) for title in _MINUTES}


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.repeats)
    print_record("first_answer", {"first_answer_s": figures}, folder=options.record)


if __name__ == "__main__":
    main()
