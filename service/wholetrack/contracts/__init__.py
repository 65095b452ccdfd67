"""Value types shared by all stages: the contents of ``model.json``, and the result of a prediction.

Types read from ``model.json`` are frozen pydantic models, which validate it. Types that stay inside the process are
frozen dataclasses. Nothing here does I/O.
"""

from wholetrack.contracts.features import (
    Affine,
    AudioSpec,
    FeatureSpec,
    MinMax,
    Normalisation,
    RelativeToMax,
    Spec,
    Unchanged,
)
from wholetrack.contracts.head import BaseModelSpec, HeadCard, HeadInput, HeadSpec, is_head, read_head_card
from wholetrack.contracts.model_card import (
    CalibrationSpec,
    DomainSpec,
    FeatureContract,
    GoldenSpec,
    Int8Spec,
    ModelCard,
    PublishedSpec,
    StripsSpec,
    WindowingSpec,
    WindowSpec,
)
from wholetrack.contracts.outputs import (
    EmbeddingSpec,
    InputSpec,
    OutputsSpec,
    ScoresSpec,
    TagCalibrationSpec,
    TagSpec,
    TagsSpec,
)
from wholetrack.contracts.prediction import (
    Detail,
    Embeddings,
    RankedGenre,
    Ranking,
    Section,
    StageTimes,
    StreamInfo,
    TagScores,
    TrackPrediction,
    TrackWarning,
    WarningCode,
    WindowScores,
    WindowTimes,
)
from wholetrack.contracts.rows import Rows, unit_length
from wholetrack.contracts.strips import Strip, Windows, joined_windows, separate_windows
from wholetrack.contracts.taxonomy import TaxonomySpec
from wholetrack.contracts.versions import ModelCardV1, OnnxSpec, read_model_card

__all__ = [
    "Affine",
    "AudioSpec",
    "BaseModelSpec",
    "CalibrationSpec",
    "Detail",
    "DomainSpec",
    "EmbeddingSpec",
    "Embeddings",
    "FeatureContract",
    "FeatureSpec",
    "GoldenSpec",
    "HeadCard",
    "HeadInput",
    "HeadSpec",
    "InputSpec",
    "Int8Spec",
    "MinMax",
    "ModelCard",
    "ModelCardV1",
    "Normalisation",
    "OnnxSpec",
    "OutputsSpec",
    "PublishedSpec",
    "RankedGenre",
    "Ranking",
    "RelativeToMax",
    "Rows",
    "ScoresSpec",
    "Section",
    "Spec",
    "StageTimes",
    "StreamInfo",
    "Strip",
    "StripsSpec",
    "TagCalibrationSpec",
    "TagScores",
    "TagSpec",
    "TagsSpec",
    "TaxonomySpec",
    "TrackPrediction",
    "TrackWarning",
    "Unchanged",
    "WarningCode",
    "WindowScores",
    "WindowSpec",
    "WindowTimes",
    "WindowingSpec",
    "Windows",
    "is_head",
    "joined_windows",
    "read_head_card",
    "read_model_card",
    "separate_windows",
    "unit_length",
]
