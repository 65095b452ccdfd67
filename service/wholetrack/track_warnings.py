"""The warnings about a prediction that follow from the windows of the track."""

from __future__ import annotations

from collections.abc import Iterator

from wholetrack.contracts import ModelCard, TrackWarning, WarningCode, WindowScores


def track_warnings(
    card: ModelCard, scores: WindowScores, duration_s: float, *, in_domain: bool | None
) -> Iterator[TrackWarning]:
    """Yield what may affect the prediction of a track, apart from its decoding.

    Args:
        card: Contents of the model's ``model.json``.
        scores: The scores of the windows in the labels of the model.
        duration_s: Duration of the recording in seconds.
        in_domain: Whether the recording resembles the music that the model was trained on; None if unknown.
    """
    if duration_s < card.windows.window_s:
        yield TrackWarning(
            WarningCode.PADDED,
            f"The recording lasts {duration_s:.2f} s, less than a window of {card.windows.window_s:g} s. It was "
            "repeated to fill one.",
        )
    n_silent = int(scores.silent.sum())
    if n_silent == len(scores.silent):
        yield TrackWarning(WarningCode.SILENT_TRACK, "The whole recording is silent, so no genre is predicted.")
        return
    if n_silent:
        have = "is silent and has" if n_silent == 1 else "are silent and have"
        yield TrackWarning(WarningCode.SILENT_WINDOWS, f"{n_silent} of {len(scores.silent)} windows {have} no vote.")
    if in_domain is False:
        yield TrackWarning(
            WarningCode.OUT_OF_DOMAIN,
            "The recording does not resemble the music that the model was trained on, so its genre may mean nothing.",
        )
