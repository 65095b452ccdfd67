"""``CARD.md`` of wholetrack-crnn 2: what it is, what taught it, how accurate it is, and what its limitations are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wholetrack.contracts import ModelCard
from wholetrack_training.export.two_towers import FLATTEST
from wholetrack_training.results.intervals import Share
from wholetrack_training.results.markdown import markdown_table
from wholetrack_training.systems.taxonomy import GTZAN, UNVERIFIED

_ACCURACY = (
    ("windows", "right", "GTZAN, excerpts of one 3 s window, in GTZAN's ten genres"),
    ("clips", "right", "GTZAN, clips of 15 to 30 s by summed score, in GTZAN's ten genres"),
    ("beyond", "gtzan", "beyond GTZAN, recordings of seven of its genres, in the ten"),
    ("beyond", "gtzan_agreed", "the same, where listeners agree"),
    ("beyond", "groups_top1", "beyond GTZAN, 15 groups, first genre"),
    ("beyond", "groups_top3", "the same, among the first three"),
)
_DOMAIN = (
    ("clips", "held-out clips of GTZAN"),
    ("clips_left_out", "the same, without the label of their genre"),
    ("beyond", "recordings beyond GTZAN"),
    ("beyond_left_out", "the same, without the label of their genre"),
    ("free_music", "free music of any genre, which may have taught the network"),
    ("no_music", "noise, tones, hum, clicks and speech"),
    ("precision", "precision"),
)


def two_tower_card_text(card: ModelCard) -> str:
    """Return the card of a bundle as Markdown; all figures come from the contract.

    Args:
        card: The contract. Without figures, as for the networks of folds, the card has no sections about them.
    """
    lines = [f"# {card.name} {card.version}", "", f"{card.summary}: {', '.join(card.labels)}.", "", *_facts(card), ""]
    if "windows" in card.metrics:
        lines += ["## Accuracy", "", *_accuracy(card.metrics), "", "## Known genres", "", *_domain(card.metrics), ""]
        lines += ["## Limitations", "", *(f"- {sentence}" for sentence in _limitations(card)), ""]
    return "\n".join(lines)


def _facts(card: ModelCard) -> Iterator[str]:
    windows, trained = card.windows, card.trained_on
    for entry in card.inputs:
        features = entry.features
        yield (
            f"- Input `{entry.name}`: {entry.frames} frames of {features.n_mels} mel bands, "
            f"{features.frames_per_second} frames per second, {features.fmin:.0f} to {features.fmax:.0f} Hz "
            f"({card.audio.sample_rate} Hz)."
        )
    yield f"- Windows of {windows.window_s:g} s every {windows.hop_s:g} s."
    if "parameters" in card.metrics:
        yield (
            f"- Network: {card.metrics['parameters']:,} parameters, {card.metrics['mflop_per_window']:g} MFLOP per "
            "window (a multiplication and an addition count as two)."
        )
        yield (
            "- Export: for the golden windows, probabilities and embeddings of ONNX and PyTorch differ by at most "
            f"{card.metrics['export_max_difference']:.1e}."
        )
    yield f"- Training data: {trained['data']}."
    yield from (f"- Started from {_network(entry)}" for entry in trained["started_from"])
    yield from (f"- Taught by {_network(entry)}" for entry in trained["taught_by"])
    yield (
        f"- Licence of the network: {card.licence}. GTZAN is a research data set of commercial recordings and has no "
        "licence."
    )


def _network(entry: Mapping[str, str]) -> str:
    return (
        f"{entry['network']} of [{entry['project']}]({entry['url']}) ({entry['licence']}, {entry['paper']}), which was "
        f"trained on {entry['trained_on']}."
    )


def _accuracy(metrics: Mapping[str, Any]) -> list[str]:
    rows = [(title, *_cells(metrics[group][figure])) for group, figure, title in _ACCURACY]
    return [
        "Recordings of GTZAN are classified by a network that was trained on none of their artists, with 95 % "
        "intervals. The networks that taught it may have been trained on recordings of the same artists.",
        "",
        *markdown_table(("recordings", "n", "accuracy", "95 %"), rows),
        "",
        "A bias is added to the logits of each genre, because some genres were learned from labels and some from the "
        "tags of other networks. The biases were fitted to the recordings of this table: for a recording of GTZAN "
        "without those of its fold, and for a recording beyond GTZAN without itself. Published are "
        f"{_listed([f'{genre} {bias:g}' for genre, bias in metrics['bias'].items()])}. Without any bias the figures of "
        f"the table are {_listed([f'{share:.3f}' for share in _unbiased(metrics)])}.",
        "",
        "The logits of a window are multiplied by a factor before the biases are added: 1 if its genre is known, "
        f"{FLATTEST:g} if not, and by the tag `known genre` in between.",
        "",
        "Which parts are added up to a score, and how much the tags of each tagger count, was chosen by "
        "hand among about 50 combinations by their accuracy on all of these recordings. The figures are therefore a "
        "little too high.",
    ]


def _domain(metrics: Mapping[str, Any]) -> list[str]:
    domain = metrics["domain"]
    rows = [(title, *_cells(domain[name])) for name, title in _DOMAIN if domain.get(name)]
    return [
        "Share of the recordings that are `in_domain`. The tag `known genre` is the probability that the music "
        "belongs to one of the genres, from a logistic regression on the energy of the scores and the largest "
        "probability, both as the network yields them, and the tags for music and for what is no music. It was "
        "fitted to held-out folds of GTZAN, each recording once as it is and once without the label of its genre, and "
        f"to synthesised sounds. A recording is in domain if the tag has at least a probability of "
        f"{domain['threshold']:g}, which 90 % of the held-out clips reach. Precision: of the recordings that are in "
        "domain, counting each once with the label of its genre and once without, those that have it.",
        "",
        *markdown_table(("recordings", "n", "in domain", "95 %"), rows),
    ]


def _limitations(card: ModelCard) -> Iterator[str]:
    metrics = card.metrics
    yield f"The model assigns one of {len(card.labels)} genres to any recording, even if it is not music."
    error = metrics["calibration"]
    low, high = error["by_chance"]
    inside = "within" if error["error"] <= high else "outside"
    yield (
        f"`confidence` is calibrated with a temperature of {metrics['temperature']:.2f}, fitted to held-out clips of "
        f"GTZAN and to recordings beyond it. For {error['n']} recordings beyond GTZAN, each at the temperature fitted "
        f"to the others, its expected calibration error is {error['error']:.3f}, {inside} the range of {low:.3f} to "
        f"{high:.3f} that exact confidences would have by chance."
    )
    yield (
        f"Sounds that are not music get a confidence of up to {metrics['no_music_confidence']:.2f}. `in_domain` "
        "identifies them."
    )
    calibrated = list(metrics["tags"])
    yield (f"Calibrated tags: {_listed(calibrated)}. " if calibrated else "No tag is calibrated. ") + (
        "There are no labelled recordings for the others: they are the probabilities of the network's sigmoid "
        "function, as taught by mn04, and are marked as unverified."
    )
    yield (
        f"{_listed(UNVERIFIED)} are tags and not genres, because there are fewer than ten labelled recordings to judge "
        "each of them by."
    )
    yield (
        f"Only GTZAN's genres ({_listed(GTZAN)}) were learned from labels. What the model knows of the others comes "
        "from the networks that taught it."
    )
    yield (
        "The scores depend on the level of a recording, unlike those of version 1: the spectrogram of the music tower "
        "is not relative to the loudest value of a window. The tower was taught with gains from -12 to 6 dB."
    )
    yield "Music from most of the world is missing from all sets of recordings that the model was judged by."


def _unbiased(metrics: Mapping[str, Any]) -> list[float]:
    return [float(metrics[f"{group}_unbiased"][figure]["share"]) for group, figure, _ in _ACCURACY]


def _cells(share: Mapping[str, Any]) -> tuple[str, str, str]:
    counted = Share(share["right"], share["n"])
    low, high = counted.interval
    return str(counted.n), f"{counted.value:.3f}", f"{low:.3f} to {high:.3f}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
