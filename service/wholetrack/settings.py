"""Settings: environment variables with the prefix ``WHOLETRACK_`` or the same names in a file ``.env``.

A blank value means that the setting is not set.
"""

from __future__ import annotations

import math
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, HttpUrl, NonNegativeInt, PositiveInt, SecretStr
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from wholetrack.deprecated_settings import RENAMED, read_former_names
from wholetrack.variables import blank_variables, check_names, without_unset

PREFIX = "WHOLETRACK_"
_MIB = 1 << 20


class DeviceChoice(StrEnum):
    """The device that runs the network."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """The number format in which a network computes."""

    FLOAT32 = "float32"
    INT8 = "int8"


class ModelVersions(StrEnum):
    """Which versions of a model are served."""

    NEWEST = "newest"
    ALL = "all"


class SandboxChoice(StrEnum):
    """Whether decoders run in a sandbox."""

    AUTO = "auto"
    REQUIRED = "required"
    OFF = "off"


def available_cpus() -> int:
    """Return how many CPUs this process may keep busy: its affinity, capped by its cgroup quota, and at least 1."""
    return max(1, min(len(os.sched_getaffinity(0)), _cgroup_cpus() or 1 << 20))


def _cgroup_cpus() -> int | None:
    """Return the CPU quota of the control group (version 2 or 1), rounded up, or None if there is no quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return math.ceil(int(quota) / int(period)) if quota.isdigit() else None


def _temporary_folder() -> Path:
    """Return the system's folder for temporary files; ``/tmp`` if no folder is writable.

    Only some commands write files. They report an error if they cannot.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")  # noqa: S108 - it is only named in an error


def _without_tilde(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no such home folder: {path}") from error


_PathWithTilde = Annotated[Path, AfterValidator(_without_tilde)]
# Timers accept at least the upper limit, about 30 years.
_Seconds = Annotated[float, Field(gt=0, le=1e9)]


class Settings(BaseSettings):
    """Everything that an operator can configure."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    probe_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Another port that answers /healthz and /readyz only. Clients cannot occupy its connections, so "
        "supervisors should probe this one; it need not be reachable for clients. Unset: none; the images use 8081.",
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*/?$",
        description="Path under which a proxy makes the service available, such as /music, whether or not the proxy "
        "removes it from the requests.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest severity of log records to write."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description="Format of log records: json (one object per line), text (one line per record), or auto, which is "
        "text on a terminal and json otherwise.",
    )

    models_dir: _PathWithTilde | None = Field(
        default=None,
        description="Folder with additional model bundles, as <name>/<version>/model.json, served alongside the "
        "built-in ones. Unset: built-in models only.",
    )
    model_versions: ModelVersions = Field(
        default=ModelVersions.NEWEST,
        description="Versions of each model that are served: newest, or all, so that requests can name an older one as "
        "NAME@VERSION. Every version is opened at start-up and takes as much time and memory as a model of its own.",
    )
    default_model: str = Field(
        default="wholetrack-crnn",
        description="Model used for requests that do not name a model, as NAME or NAME@VERSION.",
    )

    device: DeviceChoice = Field(
        default=DeviceChoice.AUTO,
        description="Device that runs the network: cpu, cuda, or auto, which uses CUDA if it works. With cuda the "
        "service refuses to start unless CUDA produces correct results for the default model.",
    )
    cpu_threads: PositiveInt = Field(
        default_factory=available_cpus,
        description="Threads that run the network on the CPU, each with its own batch. Default: one per CPU that the "
        "process may use.",
    )
    cpu_batch: PositiveInt = Field(
        default=16,
        description="Maximum number of windows per batch on the CPU. Larger batches do not fit in the CPU caches.",
    )
    cpu_precision: Precision = Field(
        default=Precision.FLOAT32,
        description="Precision on the CPU: float32, or int8, which classifies about twice as many windows per second. "
        "With int8 the probabilities of a window differ, but genres and accuracy hardly change (the bundle's CARD.md "
        "has the figures). A bundle without an int8 network, such as "
        "wholetrack-crnn, runs in float32.",
    )
    cuda_batch: PositiveInt = Field(
        default=256,
        description="Maximum number of windows per batch on a GPU; batch sizes up to this one are warmed up at "
        "start-up. A model whose largest batch does not fit in memory gets smaller ones.",
    )
    cuda_devices: tuple[NonNegativeInt, ...] = Field(
        default=(0,),
        min_length=1,
        description="Indices of the GPUs that share the batches, as a JSON list such as [0, 1].",
    )
    cuda_sessions: PositiveInt = Field(
        default=1, description="Sessions of a network on each GPU, each with its own thread and batch."
    )
    cuda_memory_mb: PositiveInt | None = Field(
        default=None,
        description="Memory that all models together may use on each GPU, in MiB. Half of it is for the default model; "
        "what that does not need, and the rest, is for the others. Unset: nine tenths of what is free at start-up.",
    )

    inference_url: HttpUrl | None = Field(
        default=None,
        description="Address of a server of the Open Inference Protocol that runs the networks of all models, such as "
        "Triton or another instance of this service; none runs here then. Needs the extra remote. It must serve the "
        "same versions, and its outputs are compared with the bundle at start-up.",
    )
    inference_key: SecretStr | None = Field(default=None, description="Key that is sent to that server.")
    device_timeout_s: _Seconds = Field(
        default=60.0,
        description="Time limit of one run of the network, in seconds. A thread that exceeds it is abandoned and "
        "replaced.",
    )

    ffmpeg: _PathWithTilde | None = Field(
        default=None,
        description="Path of the ffmpeg executable. Unset: ffmpeg from PATH if it works, else the one in the package "
        "imageio-ffmpeg.",
    )
    sandbox: SandboxChoice = Field(
        default=SandboxChoice.AUTO,
        description="Sandbox for decoders, in case a file exploits ffmpeg: auto uses the layers that this machine "
        "supports (landlock, seccomp, limits; the log and /readyz list them), required refuses to start unless all of "
        "them are available, off uses none.",
    )
    temp_dir: _PathWithTilde = Field(
        default_factory=_temporary_folder,
        description="Folder for uploads while they are processed. The service creates a private folder in it at "
        "start-up. Default: the system's folder for temporary files.",
    )
    tracks_at_once: PositiveInt = Field(
        default_factory=available_cpus,
        description="Number of tracks processed at the same time, each with its own ffmpeg process. Default: one per "
        "CPU.",
    )
    pin_decoders: bool = Field(
        default_factory=lambda: available_cpus() == len(os.sched_getaffinity(0)),
        description="Pin each ffmpeg process to the CPU with the fewest ffmpeg processes of this service, which takes "
        "less CPU time to decode the same audio. Turn it off if several instances share the same CPUs. Default: on, "
        "unless a quota limits the process to part of the machine.",
    )
    tracks_open: PositiveInt = Field(
        default_factory=lambda: 16 * available_cpus(),
        description="Number of tracks that may be open at the same time. Open tracks take turns decoding, so that a "
        "song does not wait for a long mix to finish. Each holds a decoder and its windows. Fewer are open if the "
        "memory for decoders is too small. Default: 16 per CPU.",
    )
    decoder_memory_mb: PositiveInt | None = Field(
        default=None,
        description="Memory for all ffmpeg processes together, in MiB. Each may use 64 MiB, or 256 MiB if a file needs "
        "more; a quarter of the memory is reserved for such files. Unset: three quarters of the memory limit of the "
        "container (or of the machine's memory) that are left after start-up, less the size of temp_dir if that is a "
        "tmpfs.",
    )
    max_requests: PositiveInt = Field(
        default=64,
        description="Maximum number of predictions admitted at the same time, including those that are waiting. "
        "Further requests get a 429.",
    )
    max_wait_s: _Seconds = Field(
        default=30.0,
        description="Requests get a 429 if the track would wait longer than this for a processor, in seconds. The wait "
        "is estimated from the number of predictions in progress and the time that recent tracks took. A limit above "
        "request_timeout_s has no effect.",
    )

    max_live: PositiveInt = Field(
        default=16,
        description="Maximum number of live predictions (/v1/live) at the same time. Each also counts as a prediction "
        "in max_requests, and may last as long as max_duration_s allows.",
    )

    cache_mb: NonNegativeInt = Field(
        default=0,
        description="Memory for cached predictions, in MiB. A recording with the same bytes and parameters as an "
        "earlier one is then not decoded again. 0 turns the cache off.",
    )

    api_keys: SecretStr | None = Field(
        default=None,
        description="API keys as name:key, separated by spaces or commas; `wholetrack key NAME` creates one. If any "
        "key is configured, here or in the file, requests to /v1 need one. Unset: no keys. Set but empty, without "
        "a key in the file: the service does not start.",
    )
    api_keys_file: _PathWithTilde | None = Field(
        default=None,
        description="TOML file with one table per key: [name] with sha256 and, optionally, requests_per_minute and "
        "concurrent, which override the two settings below, and weight (1 to 8), which multiplies the share of the "
        "machine that the key's tracks get. Unset: no file. Set but empty, without a key in the setting above: the "
        "service does not start.",
    )
    key_requests_per_minute: PositiveInt | None = Field(
        default=None, description="Requests per minute allowed for each key. Unset: no limit."
    )
    key_concurrent: PositiveInt | None = Field(
        default=None, description="Concurrent predictions and rankings allowed for each key. Unset: no limit."
    )
    open_health: bool = Field(default=True, description="Whether /healthz and /readyz are available without a key.")
    open_metrics: bool = Field(default=False, description="Whether /metrics is available without a key.")
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="Origins whose pages may read responses in a browser (CORS), as a JSON list such as "
        '["https://example.org"]. Empty: none.',
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names under which clients may address the service, as a JSON list such as "
        '["music.example.org", "*.internal"]; requests with another name in their Host header get a 421. IP addresses '
        "and names without a dot, such as localhost, are always accepted. Empty: a service without keys that listens "
        "on a loopback address accepts only those; any other service accepts all names.",
    )

    otlp_endpoint: str | None = Field(
        default=None,
        description="URL to which OpenTelemetry spans of requests are sent with OTLP over HTTP, such as "
        "http://127.0.0.1:4318/v1/traces. Needs the extra `tracing`, which `make serve` and the images include. Unset: "
        "no spans.",
    )

    max_upload_bytes: PositiveInt = Field(default=512 * _MIB, description="Maximum size of an upload, in bytes.")
    max_duration_s: _Seconds = Field(
        default=3 * 3600.0, description="Maximum duration of a recording, in seconds of decoded audio."
    )
    max_windows: PositiveInt = Field(
        default=20_000,
        description="Maximum number of windows of a recording; a longer one needs a larger hop_s. For a model that "
        "yields several steps per window, each step counts. Three hours are 10,800 windows at a hop of one second.",
    )
    max_connections: PositiveInt = Field(
        default=512,
        description="Maximum number of client connections. Above it, those that have waited longest for a request are "
        "closed; if all have requests in progress, further requests get a 429. Each needs a file descriptor.",
    )
    keep_alive_s: PositiveInt = Field(
        default=75,
        description="How long a connection stays open between requests, in seconds. Longer than proxies keep theirs, "
        "often 60 s, so that none sends a request on a connection that is being closed.",
    )
    max_header_bytes: PositiveInt = Field(
        default=32 << 10,
        description="Maximum size of the request line and headers of a request, in bytes. There may be at most 100 "
        "headers, and at most 8190 bytes in the URL and in each header.",
    )
    min_upload_bytes_per_s: PositiveInt = Field(
        default=16_384,
        description="Minimum average rate of an upload, in bytes per second, enforced after client_timeout_s.",
    )
    min_response_bytes_per_s: PositiveInt = Field(
        default=16_384,
        description="Minimum average rate at which a client reads a response, in bytes per second, enforced after "
        "client_timeout_s.",
    )
    client_timeout_s: _Seconds = Field(
        default=10.0,
        description="How long the service waits for a client, in seconds: for the headers of a request, and before it "
        "enforces the minimum rates of an upload and of a response.",
    )
    request_timeout_s: _Seconds = Field(
        default=600.0,
        description="Time limit of a request, from its first byte until the response is ready, in seconds. A client "
        "that reads a response for longer than client_timeout_s must finish within this limit, too.",
    )
    shutdown_timeout_s: _Seconds = Field(
        default=30.0, description="How long a shutdown waits for requests in progress, in seconds."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the variables that are set, first by their current and then by their former names."""
        variables = [_variables_of(env_settings), _variables_of(dotenv_settings)]
        present = [without_unset(source) for source in variables]
        for source in present:
            check_names(PREFIX, source.env_vars, {*settings_cls.model_fields, *RENAMED})
        former = [read_former_names(source) for source in present]
        # A variable for keys that is set but empty is more likely a mistake than the wish to serve without keys.
        keys_expected = any(blank_variables(source, ("api_keys", "api_keys_file")) for source in variables)
        no_keys = InitSettingsSource(settings_cls, {"api_keys": SecretStr("")} if keys_expected else {})
        return (init_settings, *present, file_secret_settings, *former, no_keys)


def _variables_of(source: PydanticBaseSettingsSource) -> EnvSettingsSource:
    if not isinstance(source, EnvSettingsSource):
        raise TypeError(f"{source!r} does not read variables")
    return source
