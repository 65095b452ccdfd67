"""The part of ``model.json`` that says how the input of a network is computed from audio."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """A part of ``model.json``. Unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def document(self) -> dict[str, Any]:
        """Return the contents as JSON values, without the optional fields that are absent."""
        values = self.model_dump(mode="json", exclude_none=True)
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is None and field.default is not None:
                # A null that differs from the default, such as mel_norm.
                values[name] = None
            elif value in ((), {}) and value == field.default:
                del values[name]
            elif isinstance(value, Spec):
                values[name] = value.document()
            elif isinstance(value, tuple) and value and isinstance(value[0], Spec):
                values[name] = [entry.document() for entry in value]
        return values


class AudioSpec(Spec):
    """The PCM that the features are computed from: mono, float32, full scale at 1.0."""

    sample_rate: int = Field(gt=0, description="Sample rate in Hz.")


class RelativeToMax(Spec):
    """Level relative to the maximum of the window: ``max(dB - max(dB), -range_db) / range_db + 1``, in [0, 1].

    The loudness of the recording cancels out. Everything more than ``range_db`` below the maximum is clipped.
    """

    kind: Literal["relative_to_max"] = "relative_to_max"
    scope: Literal["window"] = "window"
    range_db: float = Field(gt=0, description="Dynamic range that is kept, in dB.")


class MinMax(Spec):
    """Level clipped ``range_db`` below the maximum of the window, with the remaining range scaled to [low, high].

    A constant window becomes ``low``.
    """

    kind: Literal["min_max"] = "min_max"
    scope: Literal["window"] = "window"
    range_db: float = Field(gt=0, description="Dynamic range that is kept, in dB.")
    low: float = Field(description="Value of the minimum.")
    high: float = Field(description="Value of the maximum.")


class Affine(Spec):
    """The same linear function of every value: ``(level + add) / divide_by``.

    The prediction depends on the loudness of the recording.
    """

    kind: Literal["affine"] = "affine"
    scope: Literal["window"] = "window"
    add: float = Field(allow_inf_nan=False, description="Added to the level.")
    divide_by: float = Field(gt=0, allow_inf_nan=False, description="The sum is divided by this.")


class Unchanged(Spec):
    """The log-mel values as they are, so that the prediction depends on the loudness of the recording."""

    kind: Literal["unchanged"] = "unchanged"
    scope: Literal["window"] = "window"


Normalisation = Annotated[RelativeToMax | MinMax | Affine | Unchanged, Field(discriminator="kind")]
"""Normalisation of the network's input. It is computed per window, so that a window never depends on another one."""


class FeatureSpec(Spec):
    """A log-mel spectrogram and the grid of its frames.

    Frame ``i`` belongs to sample ``round(i * sample_rate / frames_per_second)`` or ``i * hop_length``; exactly one of
    ``frames_per_second`` and ``hop_length`` is given. The frame covers ``n_fft`` samples from there on or, with
    ``centred``, around there. All frames come from the recording as a whole: a frame near the edge of a window
    contains samples beyond that edge, and padding occurs only at the ends of the recording.

    The level of a band is ``log(max(gain * x, floor))`` or ``log(gain * x + offset)``, where ``x`` is the sum of the
    magnitudes or powers in the band; exactly one of ``floor`` and ``offset`` is given.
    """

    pre_emphasis: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Coefficient `c` of the filter `y[n] = x[n] - c * x[n - 1]`, which is applied to the recording "
        "before everything else. The sample before the first one counts as 0. Absent: no filter.",
    )
    n_fft: int = Field(gt=0, description="Length of a frame in samples.")
    win_length: int | None = Field(
        default=None,
        gt=1,
        description="Length of the window function in samples, at most n_fft. It lies in the middle of the frame, and "
        "the rest of the frame is multiplied by 0. Absent: n_fft.",
    )
    window: Literal["hann", "hann_symmetric"] = Field(
        default="hann",
        description="Window function of the transform: hann is periodic (it would be 0 one sample after its end), "
        "hann_symmetric is 0 at its first and its last sample.",
    )
    centred: Literal["reflect", "zeros"] | None = Field(
        default=None,
        description="Frames lie around their sample (`n_fft // 2` samples before it), and the recording continues "
        "beyond its ends by reflection or with zeros. Absent: frames begin at their sample, with zeros beyond the end.",
    )
    frames_per_second: int | None = Field(default=None, gt=0, description="Frame rate, for a grid by time.")
    hop_length: int | None = Field(default=None, gt=0, description="Samples between frames, for a grid by samples.")
    n_mels: int = Field(gt=0, description="Number of mel bands.")
    fmin: float = Field(ge=0, description="Lower edge of the lowest band in Hz.")
    fmax: float = Field(gt=0, description="Upper edge of the highest band in Hz.")
    mel_scale: Literal["slaney", "htk", "kaldi"] = Field(
        default="slaney",
        description="Formula of the mel scale. The bands of slaney and htk are triangles over Hz; those of kaldi, on "
        "the scale `1127 ln(1 + f / 700)`, are triangles over mel and have unit height.",
    )
    mel_norm: Literal["slaney"] | None = Field(
        default="slaney", description="slaney for filters of unit area, null for filters of unit height."
    )
    empty_bands: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Whether bands may contain no bin of the transform, for example above half the sample rate. Their "
        "sum is always 0.",
    )
    power: Literal[1, 2] = Field(default=2, description="1 for magnitude, 2 for power.")
    log: Literal["db", "ln", "log10"] = Field(
        default="db", description="10 log10, the natural logarithm, or the logarithm to base 10."
    )
    gain: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Factor of the mel values, applied before the logarithm."
    )
    floor: float | None = Field(
        default=None, gt=0, description="Lower bound of the mel values, applied before the logarithm."
    )
    offset: float | None = Field(
        default=None, gt=0, description="Added to the mel values before the logarithm, in place of a lower bound."
    )
    normalisation: Normalisation = Field(description="Applied to each window separately.")

    @model_validator(mode="after")
    def _fields_agree(self) -> FeatureSpec:
        if (self.frames_per_second is None) == (self.hop_length is None):
            raise ValueError("give exactly one of frames_per_second and hop_length")
        if (self.floor is None) == (self.offset is None):
            raise ValueError("give exactly one of floor and offset")
        if self.log != "db" and isinstance(self.normalisation, RelativeToMax | MinMax):
            raise ValueError(f"normalisation {self.normalisation.kind} needs features in dB, not {self.log}")
        if self.fmin >= self.fmax:
            raise ValueError(f"fmin {self.fmin} must be below fmax {self.fmax}")
        if self.win_length is not None and self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} must not exceed n_fft {self.n_fft}")
        if self.mel_scale == "kaldi" and self.mel_norm is not None:
            raise ValueError("the bands of mel_scale kaldi have unit height: set mel_norm to null")
        return self

    def frame_rate(self, sample_rate: int) -> Fraction:
        """Frames per second, exactly."""
        if self.frames_per_second is not None:
            return Fraction(self.frames_per_second)
        assert self.hop_length is not None
        return Fraction(sample_rate, self.hop_length)
