"""The wire format: what a caller may ask and what the service answers, built from the contracts in one place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wholetrack.contracts import ModelCard, Ranking, TrackPrediction, WarningCode, WindowScores

# Six decimals keep a probability exact to 5e-7 and an answer about a two-hour mix below a megabyte.
_DECIMALS = 6


class WindowDetail(StrEnum):
    """How much of every window goes into the answer."""

    NONE = "none"
    TOP = "top"
    FULL = "full"


class PredictParameters(BaseModel):
    """The query of a prediction."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None,
        description="Name of a served model; the default one if not given.",
        examples=["wholetrack-crnn"],
    )
    top_k: int = Field(
        default=3, ge=1, description="How many genres to rank; at most the model's number of labels.", examples=[3]
    )
    hop_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Distance between window starts in seconds, from one frame to the window's length; the model's "
        "default if not given.",
        examples=[1.0],
    )
    windows: WindowDetail = Field(
        default=WindowDetail.FULL,
        description="Of every window: nothing but the count, its start and leading genre, or its probabilities too.",
        examples=["full"],
    )


@dataclass(frozen=True, slots=True)
class Received:
    """What is known of a recording beside what the pipeline found.

    Attributes:
        filename: as the client called it, if it did.
        sha256: of its bytes, in hexadecimal.
        n_bytes: its size.
        began: ``time.monotonic()`` when its request began.
        receive_s: how long receiving took.
        wait_s: how long it waited for a thread.
    """

    filename: str | None
    sha256: str
    n_bytes: int
    began: float
    receive_s: float = 0.0
    wait_s: float = 0.0


class Track(BaseModel):
    """The recording as it came."""

    filename: str | None = Field(description="As the client called it; never used as a path.")
    sha256: str = Field(description="Of the bytes received.")
    bytes: int
    codec: str = Field(description="ffmpeg's name of the codec.")
    container: str = Field(description="ffmpeg's name of the container.")
    sample_rate_hz: int = Field(description="Of the file, before resampling.")
    channels: int = Field(description="Of the file, before the mix to mono.")
    duration_s: float = Field(description="Of the audio decoded.")


class Model(BaseModel):
    """The model that answered, and how it cut the track."""

    name: str
    version: str
    device: str = Field(description="Where the network ran: cpu, or cuda:N.")
    precision: str = Field(description="In what numbers it computed: float32, or int8.")
    window_s: float
    hop_s: float
    step_s: float | None = Field(
        default=None,
        description="Of a model that states a belief several times per window: how often. Each entry of windows is "
        "then about one step. Null of all others.",
    )
    labels: tuple[str, ...] = Field(description="Names of the columns of windows.probabilities.")


class RankedGenre(BaseModel):
    """One genre of a ranking."""

    genre: str
    share: float = Field(description="Of the total over all genres, which is 1.")


class VotedGenre(RankedGenre):
    """One genre of a ranking by votes."""

    windows: int = Field(description="Windows in which the genre comes first.")


class SummedScore(BaseModel):
    """Genres by the sum of their probabilities over all windows."""

    genre: str | None = Field(description="The first; null if the track is silent throughout.")
    share: float
    top_k: list[RankedGenre]


class MajorityVote(BaseModel):
    """Genres by the number of windows in which they come first."""

    genre: str | None = Field(description="The first; null if the track is silent throughout.")
    share: float
    top_k: list[VotedGenre]


class Prediction(BaseModel):
    """The answer about the whole track."""

    summed_score: SummedScore
    majority_vote: MajorityVote
    agreement: bool = Field(description="Whether both name the same genre.")
    confidence: float = Field(
        description="How sure the answer is, in [0, 1]. Where the model's card has a calibration, about four in five "
        "answers with 0.8 are right for music like that which it learned from; else the leading share."
    )
    in_domain: bool | None = Field(
        description="Whether the recording is of a kind that the model knows; null if the model cannot tell."
    )


class Section(BaseModel):
    """A stretch in which one genre leads."""

    start_s: float
    end_s: float
    genre: str
    share: float = Field(description="Mean probability of the genre over the section's windows.")


class Windows(BaseModel):
    """Every window, in order of time; lists that were not asked for are absent."""

    count: int
    silent: list[int] = Field(
        description="Indices of the windows without any sound. They carry no vote, their genre is null and their "
        "probabilities are uniform."
    )
    start_s: list[float] = Field(default=[])
    genre: list[str | None] = Field(default=[])
    probabilities: list[list[float]] = Field(default=[], description="One row a window, one column a label.")


class Timing(BaseModel):
    """Milliseconds spent in each stage. Stages overlap: the parts may add up to more than the total."""

    receive: float = Field(description="Receiving the upload.")
    decode: float = Field(description="Waiting for ffmpeg.")
    features: float = Field(description="Computing spectrogram and windows.")
    queue: float = Field(
        description="Waiting for a turn to be decoded, and the longest wait of a window for the device."
    )
    inference: float = Field(description="The track's share of the device's time; threads at work at once add up.")
    total: float = Field(description="From the first byte of the request to this answer.")


class Remark(BaseModel):
    """A remark about an answer that is still an answer."""

    code: WarningCode
    detail: str


class PredictionAnswer(BaseModel):
    """What genre a recording is, when, and how sure the service is."""

    track: Track
    model: Model
    prediction: Prediction
    sections: list[Section]
    windows: Windows
    timing_ms: Timing
    warnings: list[Remark]


class ModelSummary(BaseModel):
    """One served model."""

    name: str
    version: str
    device: str
    precision: str
    default: bool = Field(description="Whether it answers requests that name no model.")
    card: dict[str, Any] = Field(description="The bundle's model.json: labels, features, windows, metrics, licence.")

    @classmethod
    def of(cls, card: ModelCard, *, device: str, precision: str, default: bool) -> ModelSummary:
        """The summary of a bundle on its device."""
        return cls(
            name=card.name,
            version=card.version,
            device=device,
            precision=precision,
            default=default,
            card=card.model_dump(mode="json"),
        )


class ModelList(BaseModel):
    """All served models, in alphabetical order."""

    models: list[ModelSummary]


def answer(found: TrackPrediction, received: Received, *, top_k: int, detail: WindowDetail) -> PredictionAnswer:
    """The answer about one track, cut to what was asked."""
    card, stream, times = found.card, found.stream, found.times
    return PredictionAnswer(
        track=Track(
            filename=received.filename,
            sha256=received.sha256,
            bytes=received.n_bytes,
            codec=stream.codec,
            container=stream.container,
            sample_rate_hz=stream.sample_rate_hz,
            channels=stream.channels,
            duration_s=round(found.duration_s, _DECIMALS),
        ),
        model=Model(
            name=card.name,
            version=card.version,
            device=found.device,
            precision=found.precision,
            window_s=card.windows.window_s,
            hop_s=found.hop_s,
            step_s=None if card.onnx.steps is None else card.step_s,
            labels=card.labels,
        ),
        prediction=Prediction(
            summed_score=_summed(found.summed_score, top_k),
            majority_vote=_voted(found.majority_vote, top_k),
            agreement=found.summed_score.genre == found.majority_vote.genre,
            confidence=found.confidence,
            in_domain=found.in_domain,
        ),
        sections=[
            Section(start_s=round(s.start_s, 3), end_s=round(s.end_s, 3), genre=s.genre, share=s.share)
            for s in found.sections
        ],
        windows=_windows(found.windows, card.labels, detail),
        timing_ms=Timing(
            receive=round(received.receive_s * 1e3, 3),
            decode=round(times.decode, 3),
            features=round(times.features, 3),
            queue=round(received.wait_s * 1e3 + times.queue, 3),
            inference=round(times.inference, 3),
            total=round((time.monotonic() - received.began) * 1e3, 3),
        ),
        warnings=[Remark(code=w.code, detail=w.detail) for w in found.warnings],
    )


def _summed(ranking: Ranking, top_k: int) -> SummedScore:
    top = [RankedGenre(genre=r.genre, share=r.share) for r in ranking.ranked[:top_k]]
    return SummedScore(genre=ranking.genre, share=ranking.share, top_k=top)


def _voted(ranking: Ranking, top_k: int) -> MajorityVote:
    top = [VotedGenre(genre=r.genre, share=r.share, windows=r.windows or 0) for r in ranking.ranked[:top_k]]
    return MajorityVote(genre=ranking.genre, share=ranking.share, top_k=top)


def _windows(scores: WindowScores, labels: tuple[str, ...], detail: WindowDetail) -> Windows:
    fields: dict[str, Any] = {"count": len(scores.start_s), "silent": scores.silent.nonzero()[0].tolist()}
    if detail is not WindowDetail.NONE:
        leading = scores.probabilities.argmax(axis=1).tolist()
        fields["start_s"] = scores.start_s.round(_DECIMALS).tolist()
        fields["genre"] = [
            None if silent else labels[i] for i, silent in zip(leading, scores.silent.tolist(), strict=True)
        ]
    if detail is WindowDetail.FULL:
        fields["probabilities"] = scores.probabilities.astype("f8").round(_DECIMALS).tolist()
    return Windows.model_construct(**fields, _fields_set=set(fields))
