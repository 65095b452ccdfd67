"""Settings: environment variables with the prefix ``WHOLETRACK_``, or a file ``.env``; each is described here."""

from __future__ import annotations

import json
import math
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "WHOLETRACK_"
_MIB = 1 << 20


class DeviceChoice(StrEnum):
    """Where the network is to run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """In what numbers a network computes."""

    FLOAT32 = "float32"
    INT8 = "int8"


class SandboxChoice(StrEnum):
    """What holds decoders back."""

    AUTO = "auto"
    REQUIRED = "required"
    OFF = "off"


def available_cpus() -> int:
    """Processors that this process may keep busy: its affinity and the quota of its control group, at least 1."""
    return max(1, min(len(os.sched_getaffinity(0)), _cgroup_cpus() or 1 << 20))


def _cgroup_cpus() -> int | None:
    """The quota in whole processors, of control groups version 2 or 1; None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return math.ceil(int(quota) / int(period)) if quota.isdigit() else None


class Settings(BaseSettings):
    """Everything an operator can choose."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 for any free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log records to write."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="Log records as JSON objects, one a line, or as text."
    )

    models_dir: Path | None = Field(
        default=None,
        description="Folder with further bundles to serve beside the built-in ones: <name>/<version>/model.json. Of "
        "each name the newest version is served. Unset for none.",
    )
    default_model: str = Field(default="wholetrack-crnn", description="Model that answers a request that names none.")

    device: DeviceChoice = Field(
        default=DeviceChoice.AUTO,
        description="Where the network runs: cpu, cuda, or auto for cuda where it works. With cuda the service "
        "does not start unless CUDA gives right answers.",
    )
    cpu_threads: PositiveInt = Field(
        default_factory=available_cpus,
        description="Threads that run the network on the CPU, each with a batch of its own; by default one per "
        "processor that the process may use.",
    )
    cpu_batch: PositiveInt = Field(
        default=16,
        description="Most windows in one run of the network on the CPU; larger batches leave the processor's caches.",
    )
    cpu_precision: Precision = Field(
        default=Precision.FLOAT32,
        description="float32, or int8 for about twice as many windows a second on the CPU: a window's probabilities "
        "then differ, genres and figures hardly (CARD.md of the bundle says by how much). A bundle without int8 "
        "answers in float32.",
    )
    cuda_batch: PositiveInt = Field(
        default=256, description="Most windows in one run of the network on a GPU, and the largest size warmed up."
    )
    cuda_devices: tuple[NonNegativeInt, ...] = Field(
        default=(0,),
        min_length=1,
        description="Numbers of the GPUs that share the batches, as a JSON list such as [0, 1].",
    )
    cuda_sessions: PositiveInt = Field(
        default=1, description="Sessions of a network on each GPU, each with a thread and a batch of its own."
    )
    cuda_memory_mb: PositiveInt = Field(default=2048, description="Limit of each session's memory on its GPU, in MiB.")

    device_timeout_s: PositiveFloat = Field(
        default=60.0,
        description="How long one run of the network may take, in seconds, before its thread is given up and replaced.",
    )

    ffmpeg: Path | None = Field(
        default=None,
        description="The ffmpeg to decode with; unset for the one on PATH, else the one of the package imageio-ffmpeg.",
    )
    sandbox: SandboxChoice = Field(
        default=SandboxChoice.AUTO,
        description="What holds a decoder back that a file has taken over: auto for the layers that this machine has "
        "(landlock, seccomp, limits; the log and /readyz say which), required to start only if it has all of them, off "
        "for none.",
    )
    temp_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()),
        description="Where uploads lie while they are processed, in a private folder made at start-up.",
    )
    tracks_at_once: PositiveInt = Field(
        default_factory=available_cpus,
        description="Tracks worked on at the same time, each decoded by an ffmpeg of its own; by default one per "
        "processor.",
    )
    pin_decoders: bool = Field(
        default_factory=lambda: available_cpus() == len(os.sched_getaffinity(0)),
        description="Keep each ffmpeg on one processor, the one with the fewest of this service: less work for the "
        "same sound. Turn it off where several instances share processors. By default on, unless the process has but a "
        "quota of a larger machine.",
    )
    tracks_open: PositiveInt = Field(
        default_factory=lambda: 16 * available_cpus(),
        description="Tracks begun and not yet answered, which take turns at decoding, so that a song does not wait for "
        "the end of long mixes; each holds a decoder and its windows, some 15 MiB. By default 16 per processor.",
    )
    max_requests: PositiveInt = Field(
        default=64, description="Predictions admitted at the same time, those that wait included; more get a 429."
    )

    repeats_mb: NonNegativeInt = Field(
        default=0,
        description="Memory for predictions of recordings heard before, in MiB: the same bytes are then answered "
        "without being decoded again. 0 for none.",
    )

    api_keys: SecretStr | None = Field(
        default=None,
        description="API keys as name:key, with spaces or commas between them; make one with `wholetrack key NAME`. "
        "With keys from here or from the file, requests to /v1 need one. Unset for none.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="A TOML file with a table for each key: [name], sha256, and if they differ from the settings below "
        "requests_per_minute and concurrent; weight (1 to 8) for tracks that get so many times the share of others. "
        "Unset for none.",
    )
    key_requests_per_minute: PositiveInt | None = Field(
        default=None, description="Requests that each key may make in a minute; unset for any number."
    )
    key_concurrent: PositiveInt | None = Field(
        default=None, description="Predictions that each key may have under way; unset for any number."
    )
    open_health: bool = Field(default=True, description="Whether /healthz and /readyz answer without a key.")
    open_metrics: bool = Field(default=False, description="Whether /metrics answers without a key.")
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="Origins whose pages may read answers in a browser, as a JSON list such as "
        '["https://example.org"]; empty for none.',
    )

    otlp_endpoint: str | None = Field(
        default=None,
        description="Where OpenTelemetry spans of requests are sent, by OTLP over HTTP, such as "
        "http://127.0.0.1:4318/v1/traces; needs the extra `tracing`, which `make serve` and the images have. Unset for "
        "none.",
    )

    max_upload_bytes: PositiveInt = Field(default=512 * _MIB, description="Largest upload, in bytes.")
    max_duration_s: PositiveFloat = Field(
        default=3 * 3600.0, description="Longest recording, in seconds of decoded audio."
    )
    max_windows: PositiveInt = Field(
        default=20_000,
        description="Most windows of a recording; beyond that it needs a larger hop_s. Where a model states several "
        "beliefs for a window, each counts. Three hours have 10,800 windows of a second's distance.",
    )
    max_connections: PositiveInt = Field(
        default=512, description="Connections of clients at the same time; more get a 429. Each takes a descriptor."
    )
    max_header_bytes: PositiveInt = Field(
        default=32 << 10, description="Largest head of a request, its line and headers, in bytes."
    )
    min_upload_bytes_per_s: PositiveInt = Field(
        default=16_384, description="Slowest upload, in bytes a second on average after client_timeout_s."
    )
    client_timeout_s: PositiveFloat = Field(
        default=10.0,
        description="How long a client may keep the service waiting, in seconds: for a request's headers, before the "
        "rate of an upload counts, and without taking anything of its answer.",
    )
    request_timeout_s: PositiveFloat = Field(
        default=600.0, description="Time limit of a request from its first byte to its answer, in seconds."
    )
    shutdown_timeout_s: PositiveFloat = Field(
        default=30.0, description="How long a shutdown waits for the requests under way, in seconds."
    )


def settings_with_sources(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Every setting as (variable, value, source, description).

    The source is ``environment``, ``given`` (the file ``.env`` or the command line) or ``default``.
    """
    in_environment = {name.upper() for name in os.environ}
    rows = []
    for name, field in type(settings).model_fields.items():
        variable, value = f"{PREFIX}{name.upper()}", getattr(settings, name)
        given = "environment" if variable in in_environment else "given"
        source = given if name in settings.model_fields_set else "default"
        rows.append((variable, _printed(value), source, field.description or ""))
    return rows


def _printed(value: object) -> str:
    """A value as it would be set; nothing for none."""
    if isinstance(value, tuple):
        return json.dumps(value)
    return "" if value is None else str(value)
