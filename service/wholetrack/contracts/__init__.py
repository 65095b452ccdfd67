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
from wholetrack.contracts.model_card import (
    CalibrationSpec,
    DomainSpec,
    GoldenSpec,
    Int8Spec,
    ModelCard,
    OnnxSpec,
    WindowSpec,
)
from wholetrack.contracts.prediction import (
    RankedGenre,
    Ranking,
    Section,
    StageTimes,
    StreamInfo,
    TrackPrediction,
    TrackWarning,
    WarningCode,
    WindowScores,
)

__all__ = [
    "Affine",
    "AudioSpec",
    "CalibrationSpec",
    "DomainSpec",
    "FeatureSpec",
    "GoldenSpec",
    "Int8Spec",
    "MinMax",
    "ModelCard",
    "Normalisation",
    "OnnxSpec",
    "RankedGenre",
    "Ranking",
    "RelativeToMax",
    "Section",
    "Spec",
    "StageTimes",
    "StreamInfo",
    "TrackPrediction",
    "TrackWarning",
    "Unchanged",
    "WarningCode",
    "WindowScores",
    "WindowSpec",
]
