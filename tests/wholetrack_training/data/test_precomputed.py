"""Precomputed spectrograms become tracks in dB, and files with a different layout are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wholetrack_training.data.precomputed import load_precomputed
from wholetrack_training.errors import DataError

HEADER = "track,genre,artist,fold,duplicate_of,audio\n"


def test_levels_become_decibels_below_the_maximum(tmp_path: Path) -> None:
    mel = np.zeros((2, 128, 387), dtype=np.uint8)
    mel[0, 3, 7], mel[1] = 255, 128
    npz, table = tmp_path / "mel.npz", tmp_path / "tracks.csv"
    np.savez(npz, mel=mel, track=np.array(["rock.0", "jazz.0"]), genre=np.array(["rock", "jazz"]))
    table.write_text(HEADER + "rock.0,rock,Somebody,2,jazz.0,audio/rock.0.mp3\njazz.0,jazz,,,,\n")
    found = load_precomputed(npz, table)
    assert found.labels == ("jazz", "rock")
    rock, jazz = found.tracks
    assert rock.frames.shape == (387, 128)
    assert rock.frames[7, 3] == pytest.approx(255 * 80 / 256 - 80)
    assert rock.frames[0, 0] == -80
    assert (jazz.frames == -40).all()
    assert (rock.genre, rock.artist, rock.fold, rock.duplicate_of, rock.audio) == (
        *(1, "Somebody", 2, "jazz.0"),
        "audio/rock.0.mp3",
    )
    assert (jazz.genre, jazz.artist, jazz.fold, jazz.duplicate_of, jazz.audio) == (0, None, None, None, None)


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    npz, table = tmp_path / "mel.npz", tmp_path / "tracks.csv"
    npz.write_bytes(content)
    with pytest.raises(DataError, match="tracks.csv is not a set of precomputed spectrograms"):
        load_precomputed(npz, table)
    table.write_text(HEADER)
    with pytest.raises(DataError, match="is not a set of precomputed spectrograms"):
        load_precomputed(npz, table)
