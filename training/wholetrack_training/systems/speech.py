"""Speech as an example of a sound that is not music: frames of many espeak-ng voices, stored in ``speech.npz``.

``python -m wholetrack_training.systems.speech`` regenerates the file; nothing else needs espeak-ng
(https://github.com/espeak-ng). The English, German, French and Spanish voices are left out because models are tested
with them.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Unchanged
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.features.logmel import LogMel
from wholetrack_training.files import write_npz
from wholetrack_training.systems.gtzan import GTZAN_AUDIO, gtzan_features

FEATURES = gtzan_features(Unchanged())
FILE = Path(__file__).with_name("speech.npz")
_CLIPS, _SECONDS, _SEED = 240, 6, 20_261_121
# As in gtzan-mel.npz: 256 levels for the 80 dB below a clip's maximum.
_RANGE_DB, _LEVELS = 80.0, 256
LANGUAGES = (
    *("af", "bs", "ca", "cs", "cy", "da", "eo", "et", "eu", "fi", "ga", "hr", "hu", "id", "is", "it", "la", "lt"),
    *("lv", "ms", "mt", "nb", "nl", "pl", "pt", "pt-br", "ro", "sk", "sl", "sq", "sv", "sw", "tr", "vi"),
)
_VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5"),
    *("croak", "whisper", "klatt", "klatt2", "klatt3", "klatt4"),
)
_SENTENCES = (
    "The next train to the coast leaves from platform four in eleven minutes.",
    "Tomorrow will be cloudy in the north, with some rain towards the evening.",
    "If you know the extension of the person you are calling, please dial it now.",
    "Nobody had told the gardener that the gate would be locked during the winter.",
    "Heat the oil, add the onions, and stir until they are soft and golden.",
    "In the second half of the year sales rose by seven per cent.",
    "She opened the letter, read it twice, and put it back without a word.",
    "Turn left after the bridge, then keep right for about two miles.",
    "The committee will meet again on Thursday to discuss the remaining questions.",
    "Why did you not say so before we bought the tickets?",
    "Most of these birds cross the sea at night and rest on the islands by day.",
    "Please keep your seat belt fastened until the aircraft has come to a complete stop.",
    "A good knife, said the cook, is worth more than a large kitchen.",
    "The museum is closed on Mondays and on the first of January.",
    "He counted the boxes again: twelve, thirteen, fourteen, and one was missing.",
    "What you hear now is the voice of a machine reading a sentence.",
)


@cache
def speech_frames() -> NDArray[np.float32]:
    """Return log-mel frames of six seconds of each voice, in dB, as in ``gtzan-mel.npz``, ``[n_clips, 78, 128]``."""
    with np.load(FILE, allow_pickle=False) as archive:
        levels = archive["levels"]
    return np.asarray(levels.astype(np.float32) * (_RANGE_DB / (_LEVELS - 1)) - _RANGE_DB)


def speak(rng: np.random.Generator, to: Path, *, languages: Sequence[str] = LANGUAGES) -> None:
    """Write a WAV file of some sentences, spoken with the voice of a random language at a random speed and pitch.

    Args:
        rng: Source of randomness.
        to: The file to write.
        languages: The languages to choose from, by espeak-ng's names of their voices.

    Raises:
        FileNotFoundError: If espeak-ng is not installed.
    """
    voice, variant = rng.choice(list(languages)), rng.choice(_VARIANTS)
    text = " ".join(rng.choice(_SENTENCES, size=4, replace=False))
    voice = f"{voice}+{variant}" if variant else voice
    speed, pitch = rng.integers(110, 250), rng.integers(10, 95)
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(to), text]
    subprocess.run(command, check=True, capture_output=True)


def quantised_frames(recording: Path, decoder: FfmpegDecoder) -> NDArray[np.uint8]:
    """Return the frames of the first six seconds, in levels below their maximum, ``[78, 128]``."""
    rate = GTZAN_AUDIO.sample_rate
    with decoder.open(recording, sample_rate=rate, max_duration_s=600) as decoding:
        samples = np.concatenate(list(decoding.blocks()))[: _SECONDS * rate]
    stream = LogMel(FEATURES, rate).stream()
    frames = np.concatenate((stream.push(samples), stream.finish()))
    below = np.maximum(frames - frames.max(), -_RANGE_DB)
    return np.asarray(np.rint((below / _RANGE_DB + 1) * (_LEVELS - 1)).astype(np.uint8))


def main() -> None:
    """Generate ``speech.npz``."""
    rng, decoder = np.random.default_rng(_SEED), FfmpegDecoder(find_ffmpeg())
    with tempfile.TemporaryDirectory() as folder:
        spoken, clips = Path(folder) / "spoken.wav", []
        for _ in range(_CLIPS):
            speak(rng, spoken)
            clips.append(quantised_frames(spoken, decoder))
    write_npz(FILE, {"levels": np.stack(clips)})


if __name__ == "__main__":
    main()
