"""The wire format: the parameters of a prediction and the JSON of every response."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wholetrack.api.formats import ResponseFormat
from wholetrack.contracts import Detail, WarningCode


class WindowDetail(StrEnum):
    """How much the response says about each window."""

    NONE = "none"
    TOP = "top"
    FULL = "full"


class PredictionOptions(BaseModel):
    """What a client may choose about a prediction, however it sends the recording."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None,
        description="Name of a served model, or NAME@VERSION to pin its version. Default: the default model of the "
        "service.",
        examples=["wholetrack-crnn"],
    )
    top_k: int = Field(
        default=3,
        ge=1,
        description="Number of genres in each ranking, up to the number of labels of the model.",
        examples=[3],
    )
    hop_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Time between the starts of consecutive windows, in seconds, from one frame to the length of a "
        "window. Default: the hop of the model.",
        examples=[1.0],
    )
    windows: WindowDetail = Field(
        default=WindowDetail.FULL,
        description="Detail about each window: none (only how many there are, and which are silent), top (also the "
        "start and the leading genre of each) or full (also the probabilities).",
        examples=["full"],
    )
    taxonomy: str | None = Field(
        default=None,
        description="Name of a taxonomy of the model, such as gtzan. Its genres replace the labels of the model, and "
        "the probability of a genre is the sum of the probabilities of its labels. Labels that belong to none of its "
        "genres are left out, and the rest is scaled to add up to 1. Default: the labels of the model.",
        examples=[None],
    )
    tags: Detail | None = Field(
        default=None,
        description="Tags: none, track (probabilities for the track) or windows (also for each window). Default: track "
        "for a model with tags, none for other models.",
        examples=["track"],
    )
    embedding: Detail = Field(
        default=Detail.NONE,
        description="Embedding: none, track (one vector for the track) or windows (also one for each window). Only for "
        "models with an embedding. Other formats than JSON and events show neither tags nor embeddings.",
        examples=["none"],
    )


class PredictParameters(PredictionOptions):
    """The query parameters of a prediction."""

    format: ResponseFormat | None = Field(
        default=None,
        description="Format of the response, which overrides the header Accept: json; sse or ndjson, which send events "
        "while the recording is classified; csv, jsonl or parquet, with a row for each verdict, section and window; "
        "svg or png, a picture of the timeline. A service without the extra `parquet` cannot write Parquet.",
        examples=["json"],
    )


class Track(BaseModel):
    """The recording as it was received."""

    filename: str | None = Field(description="Name of the file on the client, if it was sent. Never used as a path.")
    sha256: str = Field(description="SHA-256 of the received bytes, in hexadecimal.")
    bytes: int = Field(description="Number of received bytes.")
    codec: str = Field(description="Codec, as ffmpeg calls it.")
    container: str = Field(description="Container format, as ffmpeg calls it.")
    sample_rate_hz: int = Field(description="Sample rate of the file, before resampling.")
    channels: int = Field(description="Number of channels of the file, before mixing to mono.")
    duration_s: float = Field(description="Duration of the decoded audio, in seconds.")


class Model(BaseModel):
    """The model used, and how it divided the track into windows."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Version of the model.")
    device: str = Field(description="Device that ran the network: cpu, or cuda:N.")
    precision: str = Field(description="Precision of the network: float32 or int8.")
    window_s: float = Field(description="Length of a window, in seconds.")
    hop_s: float = Field(description="Time between window starts, in seconds.")
    step_s: float | None = Field(
        default=None,
        description="For a model that yields several steps per window: the time between steps. Each entry of windows "
        "then describes one step. Null for all other models.",
    )
    taxonomy: str | None = Field(
        default=None, description="Taxonomy whose genres replace the labels of the model; null if none was requested."
    )
    labels: tuple[str, ...] = Field(description="Labels of the columns of windows.probabilities.")


class RankedGenre(BaseModel):
    """One genre of a ranking."""

    genre: str
    parent: str | None = Field(
        default=None,
        description="Parent genre, such as electronic for house; null for a genre without one. Omitted if no label of "
        "the model has a parent, and with a taxonomy.",
    )
    share: float = Field(description="Share of the genre; the shares of all genres add up to 1.")


class VotedGenre(RankedGenre):
    """One genre of the ranking by majority vote."""

    windows: int = Field(description="Number of windows in which the genre has the highest probability.")


class SummedScore(BaseModel):
    """Genres ranked by the sum of their probabilities over all windows."""

    genre: str | None = Field(description="The first genre; null if the whole track is silent.")
    share: float = Field(description="Share of the first genre; 0 if the whole track is silent.")
    top_k: list[RankedGenre] = Field(description="The first genres, as many as requested.")


class MajorityVote(BaseModel):
    """Genres ranked by the number of windows in which they have the highest probability."""

    genre: str | None = Field(description="The first genre; null if the whole track is silent.")
    share: float = Field(description="Share of the votes for the first genre; 0 if the whole track is silent.")
    top_k: list[VotedGenre] = Field(description="The first genres, as many as requested.")


class Prediction(BaseModel):
    """The prediction for the whole track."""

    summed_score: SummedScore
    majority_vote: MajorityVote
    agreement: bool = Field(description="Whether both rankings name the same genre.")
    confidence: float = Field(
        description="Confidence of the prediction, from 0 to 1. If the model is calibrated, about four in five "
        "predictions with a confidence of 0.8 are correct, for music similar to its training data. Otherwise, the "
        "share of the first genre."
    )
    in_domain: bool | None = Field(
        description="Whether the recording seems to be music of a kind that the model knows; null if the model "
        "cannot tell."
    )


class Section(BaseModel):
    """A part of the track in which one genre leads."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    genre: str
    share: float = Field(description="Mean probability of the genre over the windows of the section.")


class Windows(BaseModel):
    """All windows in chronological order. Lists that were not requested are omitted."""

    count: int = Field(description="Number of windows.")
    silent: list[int] = Field(
        description="Indices of silent windows. They have no vote, a null genre and uniform probabilities."
    )
    start_s: list[float] = Field(default=[], description="Start of each window, in seconds.")
    genre: list[str | None] = Field(default=[], description="Genre with the highest probability in each window.")
    probabilities: list[list[float]] = Field(default=[], description="One row per window, one column per label.")


class TagProbability(BaseModel):
    """A tag of the track."""

    tag: str = Field(description="Name of the tag.")
    kind: str = Field(description="What the tag describes: genre, mood, instrument, voice, not_music or other.")
    parent: str | None = Field(
        default=None, description="Parent genre, such as electronic for house. Omitted for a tag without one."
    )
    probability: float = Field(
        description="Probability that the tag applies; calibrated unless the tag is unverified, from 0 to 1."
    )
    unverified: bool = Field(
        default=False, description="True for a tag that could not be judged because there were too few recordings."
    )


class Tags(BaseModel):
    """Tags, of which any number may apply. Lists per window are omitted unless they were requested."""

    track: list[TagProbability] = Field(
        description="All tags from the most to the least probable: the calibrated mean over all windows with sound. "
        "Empty if the whole track is silent."
    )
    labels: list[str] = Field(default=[], description="Tags of the columns of probabilities.")
    start_s: list[float] = Field(default=[], description="Start of each window, in seconds.")
    probabilities: list[list[float] | None] = Field(
        default=[], description="One row per window, one column per tag; null for a silent window."
    )


class Embedding(BaseModel):
    """Vectors of unit length that are similar for similar music. Lists per window are omitted unless requested."""

    length: int = Field(description="Number of components.")
    track: list[float] | None = Field(
        description="The mean over all windows with sound, scaled to unit length; null if the whole track is silent."
    )
    start_s: list[float] = Field(default=[], description="Start of each window, in seconds.")
    windows: list[list[float] | None] = Field(
        default=[], description="One vector per window; null for a silent window."
    )


class Timing(BaseModel):
    """Milliseconds of elapsed time that the request spent in each stage, one after the other.

    Stages run in parallel: while a request waits for one of them, the others continue, and that time counts only for
    the stage it waits for. The stages therefore add up to no more than the total.
    """

    receive: float = Field(description="Receiving the upload.")
    decode: float = Field(description="Waiting for ffmpeg.")
    features: float = Field(description="Computing the spectrogram and its windows.")
    queue: float = Field(description="Waiting for a decoding slot, while other tracks were decoded.")
    inference: float = Field(description="Waiting for the network, including while it ran windows of other tracks.")
    total: float = Field(description="From the first byte of the request to this response.")


class PredictionWarning(BaseModel):
    """Something that may affect a prediction, although it succeeded."""

    code: WarningCode = Field(description="Stable name of the warning, for use in programs.")
    detail: str = Field(description="What happened, in a sentence.")


class PredictionResponse(BaseModel):
    """The genre of a recording, where the genre changes, and how sure the model is."""

    track: Track
    model: Model
    prediction: Prediction
    sections: list[Section]
    windows: Windows
    tags: Tags | None = Field(default=None, description="Omitted unless the model has tags and they were requested.")
    embedding: Embedding | None = Field(default=None, description="Omitted unless it was requested.")
    timing_ms: Timing
    warnings: list[PredictionWarning]


class ModelSummary(BaseModel):
    """One served model in brief."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Version of the model.")
    device: str = Field(description="Device that runs the network: cpu, or cuda:N.")
    precision: str = Field(description="Precision of the network: float32 or int8.")
    default: bool = Field(description="Whether the model is used for requests that do not name one.")
    available: bool = Field(
        description="False for a model that cannot run until the service is restarted; requests for it get a 503."
    )
    unavailable_reason: str | None = Field(description="Why the model cannot run; null if it can.")
    labels: tuple[str, ...] = Field(description="Genres that the model distinguishes.")
    summary: str = Field(description="One sentence about the model.")


class ModelDescription(ModelSummary):
    """One served model with its card."""

    card: dict[str, Any] = Field(
        description="The model.json of the bundle: labels, features, windows, metrics and licence."
    )


class ModelList(BaseModel):
    """All served models in alphabetical order."""

    models: list[ModelSummary]
