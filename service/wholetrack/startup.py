"""Builds the pipeline from the settings. This is the only place where the stages are constructed."""

from __future__ import annotations

import ctypes
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from wholetrack.decoding.cpu_affinity import CpuAllocator
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg, bundled_ffmpeg, find_ffmpeg
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.decoding.self_test import self_test
from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.extraction.workers import FeatureWorkers
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.devices import Devices, ModelOpener
from wholetrack.inference.engine import Engine
from wholetrack.inference.session import precision_on
from wholetrack.inference.unavailable import UnavailableEngine
from wholetrack.inference.worker import Failure
from wholetrack.pipeline import Pipeline
from wholetrack.sandbox.layers import ALL_LAYERS, missing_layers
from wholetrack.scheduling.decoder_budget import decoder_budget_bytes, decoders_at_once
from wholetrack.served_model import ServedModel, model_key
from wholetrack.settings import DeviceChoice, Precision, SandboxChoice, Settings

_log = logging.getLogger(__name__)

# Time for clients to receive the error before the process ends.
_EXIT_GRACE_S = 1.0

# What a feature worker uses besides what it shares with the others, with a share of their launcher.
_WORKER_BYTES = 32 << 20

# glibc gives threads separate malloc arenas, up to eight per processor, and does not return the memory of an arena when
# its thread ends. With two arenas, restarting workers again and again leaves far less memory behind. Predictions are no
# slower.
_ARENAS = 2
_M_ARENA_MAX = -8


def build_pipeline(
    settings: Settings,
    bundles: dict[str, Bundle] | None = None,
    *,
    devices: Callable[[Settings, int], ModelOpener] | None = None,
) -> Pipeline:
    """Find ffmpeg, load the bundles, and open each of them on the configured devices.

    A model that does not run there is unavailable, and the others are served, unless it is the default.

    Args:
        settings: The settings.
        bundles: The bundles to serve by their keys; None for those in the folders that the settings name.
        devices: Returns what opens the models, given the settings and the number of models; None for the devices
            that the settings name.

    Raises:
        StartupError: If something is missing or does not work; the message says what to change.
    """
    limit_malloc_arenas()
    # The matrix products of one track are small, so tracks run in parallel instead of products.
    threadpool_limits(limits=1, user_api="blas")
    _check_temp_dir(settings.temp_dir)
    with ThreadPoolExecutor(1) as thread, ExitStack() as on_failure:
        # In parallel, because both take a while.
        starting = thread.submit(_start_workers, settings)
        on_failure.callback(_close_workers, starting)
        decoder = _working_decoder(settings)
        on_failure.callback(decoder.close)
        if bundles is None:
            bundles = configured_bundles(settings)
        default = default_key(bundles, settings)
        # The memory for decoders depends on how much the models take.
        models = served_models(bundles, default, settings, devices)
        workers = starting.result()
        on_failure.pop_all()
    return Pipeline(
        decoder,
        workers,
        models,
        default_model=default,
        tracks_at_once=settings.tracks_at_once,
        tracks_open=decoders_at_once(_decoder_budget_bytes(settings), tracks_open=settings.tracks_open),
        max_windows=settings.max_windows,
    )


def configured_bundles(settings: Settings) -> dict[str, Bundle]:
    """Return the bundles in the folders that the settings name, by their keys.

    Raises:
        StartupError: If one of them is invalid.
    """
    folders = [BUILT_IN_MODELS, *([settings.models_dir] if settings.models_dir else [])]
    return load_bundles(*folders, versions=settings.model_versions)


def default_key(bundles: Mapping[str, Bundle], settings: Settings) -> str:
    """Return the key of the default model.

    Raises:
        StartupError: If it is not among the bundles.
    """
    default = model_key(settings.default_model, {key: bundle.card.version for key, bundle in bundles.items()})
    if default is None:
        found = ", ".join(sorted(bundles))
        raise StartupError(f"the default model {settings.default_model!r} is not among the models found: {found}")
    return default


def _start_workers(settings: Settings) -> FeatureWorkers:
    """Start a feature worker for each track that is decoded at the same time."""
    layers = () if settings.sandbox is SandboxChoice.OFF else ALL_LAYERS
    max_tracks = len(DecoderMemory) * settings.tracks_open
    return FeatureWorkers(settings.tracks_at_once, max_tracks=max_tracks, layers=layers)


def _close_workers(starting: Future[FeatureWorkers]) -> None:
    with suppress(StartupError):
        starting.result().close()


def limit_malloc_arenas() -> bool:
    """Limit the number of malloc arenas. Call it before threads are started, because a thread keeps its arena.

    Returns:
        Whether the limit was set; allocators other than glibc's have no arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, _ARENAS) == 1


def _check_temp_dir(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartupError(
            f"no file can be created in {folder} ({error.strerror}): set WHOLETRACK_TEMP_DIR to a folder that can be "
            "written"
        ) from error


def _working_decoder(settings: Settings) -> FfmpegDecoder:
    """Open the first ffmpeg that decodes correctly: a broken one on PATH is replaced by that of imageio-ffmpeg."""
    ffmpeg = find_ffmpeg(settings.ffmpeg)
    decoder = _open_decoder(ffmpeg, settings)
    try:
        self_test(decoder, settings.temp_dir)
    except StartupError as error:
        decoder.close()
        if ffmpeg.origin != "PATH":
            raise
        _log.warning("the ffmpeg on PATH does not work; using the one in the package imageio-ffmpeg: %s", error)
        decoder = _open_decoder(bundled_ffmpeg(), settings)
        self_test(decoder, settings.temp_dir)
    return decoder


def _open_decoder(ffmpeg: Ffmpeg, settings: Settings) -> FfmpegDecoder:
    """Start ffmpeg's sandbox and check that it has the layers that the settings require."""
    _log.info("ffmpeg %s from %s: %s", ffmpeg.version, ffmpeg.origin, ffmpeg.path)
    cpus = CpuAllocator(os.sched_getaffinity(0)) if settings.pin_decoders else None
    choice = settings.sandbox
    decoder = FfmpegDecoder(ffmpeg, cpus=cpus, layers=() if choice is SandboxChoice.OFF else ALL_LAYERS)
    layers = decoder.sandbox.layers
    _log.info("ffmpeg runs in a sandbox with these layers: %s", ", ".join(sorted(layers)) or "none")
    if choice is not SandboxChoice.OFF and (missing := "; ".join(missing_layers(layers))):
        if choice is SandboxChoice.REQUIRED:
            raise StartupError(f"WHOLETRACK_SANDBOX is set to required, but this machine does not support {missing}")
        _log.warning("ffmpeg's sandbox lacks these layers: %s", missing)
    return decoder


def _decoder_budget_bytes(settings: Settings) -> int:
    """Return the memory for all decoders. The default depends on how much the service itself uses by now."""
    if settings.decoder_memory_mb is not None:
        return settings.decoder_memory_mb << 20
    reserved_bytes = (settings.cache_mb << 20) + settings.tracks_at_once * _WORKER_BYTES
    return decoder_budget_bytes(reserved_bytes=reserved_bytes, temp_dir=settings.temp_dir)


def served_models(
    bundles: Mapping[str, Bundle],
    default: str,
    settings: Settings,
    devices: Callable[[Settings, int], ModelOpener] | None = None,
) -> dict[str, ServedModel]:
    """Open bundles, and return the served models by their keys.

    A model that does not run is unavailable, unless it is the default.

    Args:
        bundles: The bundles by their keys.
        default: Key of the default model.
        settings: The settings.
        devices: Returns what opens the models, given the settings and the number of models; None for the devices
            that the settings name.

    Raises:
        StartupError: If the default model does not run, or a network contradicts its bundle.
    """
    networks = [key for key, bundle in bundles.items() if bundle.head is None]
    opener = (devices or _configured_devices)(settings, len(networks))
    # If the default is a head, the model whose network it uses has to run.
    needed = bundles[default].base or default
    keys = sorted(networks, key=lambda key: (key != needed, key))
    models = {key: _served(bundles[key], opener, settings, is_default=key == needed) for key in keys}
    for key, bundle in sorted(bundles.items()):
        if bundle.base is not None:
            base = models[bundle.base]
            models[key] = ServedModel(bundle, base.engine, cpu_fallback=base.cpu_fallback)
            _log.info("model %s version %s: ready, a head of %s", bundle.card.name, bundle.card.version, bundle.base)
    engine = models[default].engine
    if (settings.cpu_precision, engine.device, engine.precision) == (Precision.INT8, "cpu", Precision.FLOAT32):
        _log.warning("the default model has no int8 network, so that it runs in float32: %s", default)
    return models


def _configured_devices(settings: Settings, n_models: int) -> ModelOpener:
    if settings.inference_url is None:
        return Devices(settings, n_models)
    if settings.device is not DeviceChoice.AUTO:
        raise StartupError(
            f"WHOLETRACK_DEVICE is {settings.device} and WHOLETRACK_INFERENCE_URL is set: unset one of them, as the "
            "networks run either here or on that server"
        )
    try:
        from wholetrack.inference.remote_devices import remote_devices
    except ModuleNotFoundError as error:
        raise StartupError(
            f"WHOLETRACK_INFERENCE_URL needs the package {error.name}: install the extra remote"
        ) from error
    return remote_devices(settings)


def _served(bundle: Bundle, opener: ModelOpener, settings: Settings, *, is_default: bool) -> ServedModel:
    try:
        opened = opener.open(bundle)
    except UnavailableModelError as error:
        if is_default:
            raise
        _log.error("model %s is unavailable until the service is restarted: %s", bundle.card.name, error)
        precision = precision_on(error.device, bundle, settings)
        return ServedModel(bundle, UnavailableEngine(error.reason, device=error.device, precision=precision))
    engine = Engine(
        *opened.sessions,
        min_share=opened.min_share,
        run_timeout_s=settings.device_timeout_s,
        reopen=partial(opener.reopen, bundle),
        on_unrecoverable=partial(_on_unrecoverable, is_default, bundle.card.name),
    )
    _log.info(
        "model %s version %s: ready on %s in %s",
        bundle.card.name,
        bundle.card.version,
        engine.device,
        engine.precision,
    )
    return ServedModel(bundle, engine, cpu_fallback=opened.cpu_fallback)


def _on_unrecoverable(is_default: bool, name: str, failure: Failure) -> None:  # noqa: FBT001 - bound by partial
    """End the process if only a new one can help; otherwise keep serving the other models.

    A model that always raises must not end the service unless it is the default, because clients choose the model. A
    thread that hangs in a driver cannot be ended, and a lost CUDA context cannot be restored.
    """
    if failure is Failure.ALWAYS_RAISES and not is_default:
        _log.critical("model %s is unavailable until the service is restarted: %s", name, failure)
        return
    _log.critical("ending the process so that its supervisor restarts it: model %s: %s", name, failure)
    exit_after_grace()


def exit_after_grace() -> None:
    """End the process in a second, whatever its threads are doing, with the exit status ``EX_SOFTWARE`` (70)."""
    threading.Timer(_EXIT_GRACE_S, os._exit, (os.EX_SOFTWARE,)).start()
