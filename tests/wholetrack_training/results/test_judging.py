"""The arithmetic of judging: biases, folds, errors of confidences, unknown genres, and failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.errors import DataError
from wholetrack_training.export.two_towers import KNOWN_GENRE, KnownGenre
from wholetrack_training.results.audio_figures import as_document, audio_figures
from wholetrack_training.results.audio_page import audio_section, figure_lines, read_judged_models
from wholetrack_training.results.audio_sets import BEYOND, CLIPS, NO_MUSIC, WINDOWS
from wholetrack_training.results.calibration_error import calibration_error, equal_mass_error
from wholetrack_training.results.domain import DOMAIN_TAGS, domain_values, flattened, known_probability
from wholetrack_training.results.failures import failures
from wholetrack_training.results.genre_bias import _Examples, biased, fit_bias, shares_of
from wholetrack_training.results.intervals import Share
from wholetrack_training.results.judged_files import Judged, read_judged, write_judged
from wholetrack_training.results.judging import ClassifiedSet
from wholetrack_training.results.tag_calibration import calibrate_tags
from wholetrack_training.systems.taxonomy import GENRES, GTZAN

TAGS = (*DOMAIN_TAGS[1:], "Blues", "Jazz", KNOWN_GENRE)
WINDOW_TAGS = tuple(tag for tag in TAGS if tag in DOMAIN_TAGS)


def row(**logits: float) -> np.ndarray:
    """Logarithms of the probabilities of all genres, for some logits; the other logits are 0."""
    values = np.array([logits.get(genre, 0.0) for genre in GENRES])
    normalised: np.ndarray = values - np.log(np.exp(values).sum())
    return normalised


def classified(
    groups: Sequence[str],
    windows: Sequence[Sequence[np.ndarray]],
    *,
    folds: Sequence[int] | None = None,
    energy: float = 3.0,
    not_music: float = -6.0,
) -> ClassifiedSet:
    """Return a set whose windows all have the same energy and the same logit for what is not music."""
    logs = np.array([window for recording in windows for window in recording], dtype=np.float32)
    columns = [energy if tag == KNOWN_GENRE else 2.0 if tag == "Music" else not_music for tag in WINDOW_TAGS]
    return ClassifiedSet(
        names=tuple(f"{i}.flac" for i in range(len(groups))),
        groups=tuple(groups),
        folds=np.array(folds or [0] * len(groups)),
        agreed=np.arange(len(groups)) % 2 == 0,
        n_windows=np.array([len(recording) for recording in windows]),
        logs=logs,
        tags=np.full((len(groups), len(TAGS)), 0.1, dtype=np.float32),
        window_tags=np.tile(np.array(columns, dtype=np.float32), (len(logs), 1)),
    )


def made_up() -> Judged:
    """Return a record with thirty excerpts, ten clips, three recordings beyond GTZAN, and six sounds."""
    genres = [GTZAN[i % 10] for i in range(30)]
    # The excerpts of fold 1 are all wrong.
    answers = ["rock" if i < 10 and genre != "rock" else genre for i, genre in enumerate(genres)]
    answers[9] = "jazz"
    folds = [i // 10 + 1 for i in range(30)]
    return Judged(
        label="made-up",
        date="2026-01-01",
        labels=GENRES,
        tags=TAGS,
        window_tags=WINDOW_TAGS,
        sets={
            WINDOWS: classified(genres, [[row(**{answer: 4.0})] for answer in answers], folds=folds),
            CLIPS: classified(
                list(GTZAN), [[row(**{genre: 4.0})] * 2 for genre in GTZAN], folds=[i % 3 + 1 for i in range(10)]
            ),
            BEYOND: classified(
                ["Jazz", "Ambient", "60s"],
                [[row(jazz=3.0)], [row(classical=1.0, ambient=0.5)], [row(rock=9.0)]],
            ),
            NO_MUSIC: classified(["hum"] * 3 + ["speech"] * 3, [[row()]] * 6, energy=1.0, not_music=4.0),
        },
        least_peak=None,
    )


def test_a_bias_raises_its_genre_and_keeps_the_order_of_the_others() -> None:
    logs = np.stack([row(classical=1.0, ambient=0.5)]).astype(np.float32)
    ambient, classical, rock = (GENRES.index(genre) for genre in ("ambient", "classical", "rock"))
    bias = np.zeros(len(GENRES))
    unbiased = biased(logs, bias)
    bias[ambient] = 1.0
    shifted = biased(logs, bias)
    np.testing.assert_allclose(unbiased, np.exp(logs), atol=1e-6)
    assert shifted[0, ambient] / shifted[0, classical] == pytest.approx(np.exp(0.5), rel=1e-5)
    assert shifted[0, classical] / shifted[0, rock] == pytest.approx(np.exp(1.0), rel=1e-5)
    assert shifted.sum() == pytest.approx(1.0)


def test_biases_are_fitted_to_all_recordings_but_the_judged_ones() -> None:
    judged = made_up()
    bias = fit_bias(judged)
    jazz, ambient = GENRES.index("jazz"), GENRES.index("ambient")
    # The only recording of ambient is answered with classical, unless its genre gets a bias.
    assert bias.published[ambient] > bias.published[jazz] > bias.published[GENRES.index("folk")]
    assert bias.left_out[1, ambient] < 0 < bias.left_out[0, ambient]
    # No recording of rock beyond GTZAN: that of the sixties has no genre, and is judged with the published biases.
    np.testing.assert_allclose(bias.left_out[2], bias.published, atol=0.01)
    # The excerpts of fold 1 are wrong and called rock, which lowers rock wherever they are among the examples.
    rock = GENRES.index("rock")
    assert bias.by_fold[1][rock] > bias.by_fold[2][rock]
    of_windows = bias.of_windows(judged, WINDOWS)
    np.testing.assert_array_equal(of_windows[0], bias.by_fold[1])
    np.testing.assert_array_equal(of_windows[-1], bias.by_fold[3])
    np.testing.assert_array_equal(bias.of_windows(judged, NO_MUSIC)[0], bias.published)


def test_the_gradient_of_the_loss_is_its_derivative() -> None:
    judged = made_up()
    published = fit_bias(judged).published
    examples = _Examples.of(judged)
    weights = examples._weights(np.ones(len(examples.truth), dtype=np.bool_))
    _, gradient = examples._loss(published, weights)
    step = 1e-5
    for label in range(len(GENRES)):
        shift = step * np.eye(len(GENRES))[label]
        rise = examples._loss(published + shift, weights)[0] - examples._loss(published - shift, weights)[0]
        assert gradient[label] == pytest.approx(rise / (2 * step), abs=1e-6)
    # Both data sets count the same, and so does each genre in each of them.
    np.testing.assert_allclose(weights[examples.folds == 0].sum(), 2 / 12, atol=1e-9)
    assert weights.sum() == pytest.approx(1.0)


def test_a_model_of_the_genres_of_gtzan_has_no_bias() -> None:
    judged = made_up()
    ten = {name: replace(found, logs=found.logs[:, :10]) for name, found in judged.sets.items()}
    bias = fit_bias(replace(judged, labels=GTZAN, sets=ten))
    assert not bias.published.any()
    assert not bias.left_out.any()
    assert bias.by_genre(GTZAN) == {}


def test_shares_are_means_over_the_windows_of_a_recording() -> None:
    found = classified(["Jazz", "Rock"], [[row(jazz=9.0), row(rock=9.0)], [row(rock=9.0)]])
    shares = shares_of(biased(found.logs, np.zeros(len(GENRES))), found)
    assert shares[0, GENRES.index("jazz")] == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)


def test_the_calibration_error_is_the_mean_gap_of_five_equal_bins() -> None:
    confidence = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 10)
    correct = np.concatenate([np.arange(10) < n for n in (1, 3, 5, 7, 4)])
    assert equal_mass_error(confidence, correct) == pytest.approx(0.5 / 5)
    found = calibration_error(confidence, correct)
    assert found.n == 50
    assert found.by_chance[0] < found.by_chance[1] < 0.2
    exact = calibration_error(confidence, np.concatenate([np.arange(10) < n for n in (1, 3, 5, 7, 9)]))
    assert exact.error == pytest.approx(0.0)
    assert exact.error <= exact.by_chance[1]


def test_leaving_a_label_out_lowers_the_energy_of_its_recordings() -> None:
    judged = made_up()
    found = judged.sets[BEYOND]
    kept = domain_values(found, judged)
    left_out = domain_values(found, judged, left_out=np.array([GENRES.index("jazz"), -1, -1]))
    np.testing.assert_allclose(kept[:, 0], 3.0, atol=1e-5)
    jazz = np.exp(found.logs[0, GENRES.index("jazz")])
    assert left_out[0, 0] == pytest.approx(3.0 + np.log(1 - jazz), abs=1e-5)
    assert left_out[1:].tolist() == kept[1:].tolist()
    assert kept[0].tolist()[2:] == [-6.0, 2.0]
    # The tag is the mean over the windows of a logistic function of these values.
    fit = KnownGenre(energy=2.0, peak=0.0, not_music=0.0, music=1.0, constant=-8.0)
    np.testing.assert_allclose(known_probability(found, judged, fit), 0.5, atol=1e-5)


def test_failures_are_wrong_and_sure() -> None:
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.9, 0.1]])
    confidence = np.array([0.9, 0.9, 0.6, 0.85])
    found = failures(
        ["a", "b", "c", "d"],
        ["rock", "jazz", "jazz", "folk"],
        shares,
        confidence,
        ["rock", "jazz"],
        tags=[["Guitar"]] * 4,
    )
    assert [(each.name, each.answer, each.next_best, each.rank_of_right) for each in found] == [
        ("b", "rock", "jazz", 2),
        ("d", "rock", "jazz", None),
    ]
    assert found[0].tags == ("Guitar",)


def test_the_figures_of_a_record() -> None:
    figures = audio_figures(made_up())
    assert figures.windows.right == Share(20, 30)
    assert figures.windows.by_fold == {1: Share(0, 10), 2: Share(10, 10), 3: Share(10, 10)}
    assert sum(map(sum, figures.windows.confusion)) == 30
    assert figures.windows.confusion[GTZAN.index("blues")][GTZAN.index("rock")] == 1
    assert figures.clips.right == Share(10, 10)
    assert figures.beyond.gtzan == Share(1, 1)
    assert figures.beyond.groups_top1.n == 2
    assert figures.beyond_unbiased.groups_top1 == Share(1, 2)
    assert figures.groups["60s"][GENRES.index("rock")] == 1
    assert figures.calibration.n == 2
    assert figures.domain is not None
    assert figures.domain.clips.n == 10
    assert figures.domain.no_music == Share(0, 6)
    assert set(figures.domain.by_kind) == {"hum", "speech"}
    document = as_document(figures)
    assert document["windows"]["right"]["share"] == 0.6667
    assert "clips of 15 to 30 s by summed score, GTZAN's genres: 1.000 [0.722, 1.000], n = 10" in figure_lines(figures)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    judged = made_up()
    path = write_judged(judged, {}, tmp_path)
    found = read_judged(path)
    assert (found.labels, found.tags, found.window_tags) == (judged.labels, judged.tags, judged.window_tags)
    for name, before in judged.sets.items():
        after = found.sets[name]
        assert (after.names, after.groups) == (before.names, before.groups)
        assert after.owner.tolist() == before.owner.tolist()
        np.testing.assert_allclose(after.logs, before.logs, atol=5e-3)
    assert audio_figures(found).windows == audio_figures(judged).windows


def test_the_page_lists_models_side_by_side(tmp_path: Path) -> None:
    judged = made_up()
    figures = audio_figures(judged)
    for label in ("one", "two"):
        write_judged(replace(judged, label=label), as_document(figures), tmp_path)
    models = read_judged_models(tmp_path)
    assert models["two"].figures.clips == figures.clips
    text = "\n".join(audio_section(models))
    assert "| accuracy | one | two |" in text
    assert "| excerpts of one 3 s window, GTZAN's genres | 0.667 [0.488, 0.808], n = 30 | 0.667 [" in text
    assert "### Confusion of two" in text
    assert audio_section({}) == []


def test_tags_with_ten_recordings_are_calibrated() -> None:
    judged = made_up()
    rng = np.random.default_rng(0)
    windows = judged.sets[WINDOWS]
    is_jazz = np.array(windows.groups) == "jazz"
    windows.tags[:, TAGS.index("Jazz")] = np.where(is_jazz, 0.3, 0.05) * rng.uniform(0.5, 1.5, len(windows))
    assert calibrate_tags(judged).specs == {}
    repeated = {name: _repeated(found, 4) for name, found in judged.sets.items()}
    found = calibrate_tags(Judged(judged.label, "", GENRES, TAGS, WINDOW_TAGS, repeated, None))
    assert "Jazz" in found.specs
    assert found.figures["Jazz"]["brier_after"] < found.figures["Jazz"]["brier_before"]
    # The tag Blues says nothing: it is the same for all recordings.
    assert found.specs["Jazz"].slope > 1.0


def _repeated(found: ClassifiedSet, times: int) -> ClassifiedSet:
    return ClassifiedSet(
        names=found.names * times,
        groups=found.groups * times,
        folds=np.tile(found.folds, times),
        agreed=np.tile(found.agreed, times),
        n_windows=np.tile(found.n_windows, times),
        logs=np.tile(found.logs, (times, 1)),
        tags=np.tile(found.tags, (times, 1)),
        window_tags=np.tile(found.window_tags, (times, 1)),
    )


@pytest.mark.parametrize("content", ["", "{}", '{"figures": {}}'])
def test_a_damaged_record_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(DataError, match="is not a record of a judged model"):
        read_judged_models(tmp_path)


def test_windows_of_no_known_genre_are_flattened() -> None:
    judged = made_up()
    found = flattened(judged)
    before, after = judged.sets[NO_MUSIC].logs, found.sets[NO_MUSIC].logs
    np.testing.assert_allclose(np.exp(after).sum(axis=1), 1.0, atol=1e-5)
    # The sounds have a low energy, and count as unknown in the folds that they were not fitted to.
    np.testing.assert_allclose(after, before, atol=1e-5)
    for name in (WINDOWS, BEYOND):
        peaks = [np.exp(record.sets[name].logs).max(axis=1) for record in (judged, found)]
        assert (peaks[1] <= peaks[0] + 1e-6).all()
        assert (record_order(judged, name) == record_order(found, name)).all()
    assert found.tags == judged.tags


def record_order(judged: Judged, name: str) -> np.ndarray:
    return np.asarray(judged.sets[name].logs.argmax(axis=1))
