"""Putting the service together from its settings: the only place where stages are constructed."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from functools import partial

from threadpoolctl import threadpool_limits

from wholetrack.decoding.cpu_affinity import CpuAllocator
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg, find_ffmpeg
from wholetrack.decoding.self_test import self_test
from wholetrack.errors import StartupError
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles
from wholetrack.inference.engine import Engine
from wholetrack.inference.session import open_again, open_sessions
from wholetrack.pipeline import Pipeline, ServedModel
from wholetrack.sandbox.layers import ALL_LAYERS, missing_layers
from wholetrack.settings import SandboxChoice, Settings

_log = logging.getLogger(__name__)

# For whoever waits to be told that the device failed, before the process ends.
_LAST_WORDS_S = 1.0

# glibc gives threads arenas of their own, up to eight for each processor, and what an arena held is not given back
# when its thread ends: a device whose threads die and are replaced for a minute left 282 MiB behind, and 33 MiB with
# two arenas. With 16 clients two arenas cost nothing: 3.54 tracks/s and 365 MiB against 3.50 and 400, in one run.
_ARENAS = 2
_M_ARENA_MAX = -8


def build_pipeline(settings: Settings) -> Pipeline:
    """Find ffmpeg, load the bundles, and open each on a device that has proven itself.

    Raises:
        StartupError: with a sentence that says what to change.
    """
    limit_malloc_arenas()
    # The features of one track are small products in one thread; tracks, not products, run side by side.
    threadpool_limits(limits=1, user_api="blas")
    ffmpeg = find_ffmpeg(settings.ffmpeg)
    _log.info("ffmpeg %s from %s: %s", ffmpeg.version, ffmpeg.origin, ffmpeg.path)
    decoder = _open_decoder(ffmpeg, settings)
    self_test(decoder)
    bundles = load_bundles(BUILT_IN_MODELS, *([settings.models_dir] if settings.models_dir else []))
    if settings.default_model not in bundles:
        raise StartupError(
            f"the default model {settings.default_model!r} is not among the models found: {', '.join(sorted(bundles))}"
        )
    models = {}
    for name, bundle in sorted(bundles.items()):
        engine = Engine(
            *open_sessions(bundle, settings),
            hang_s=settings.device_timeout_s,
            reopen=partial(open_again, bundle, settings),
            despair=_leave_it_to_the_supervisor,
        )
        models[name] = ServedModel(bundle, engine)
        _log.info(
            "model %s version %s answers rightly on %s in %s",
            name,
            bundle.card.version,
            engine.device,
            engine.precision,
        )
    return Pipeline(
        decoder,
        models,
        default_model=settings.default_model,
        tracks_at_once=settings.tracks_at_once,
        max_windows=settings.max_windows,
    )


def limit_malloc_arenas() -> bool:
    """Let threads share the arenas of glibc's allocator; says whether they do, as other allocators have none.

    Call it before threads are started: those that have an arena keep it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, _ARENAS) == 1


def _open_decoder(ffmpeg: Ffmpeg, settings: Settings) -> FfmpegDecoder:
    """Start the sandbox of ffmpeg and check that it has the layers that the settings require."""
    cpus = CpuAllocator(os.sched_getaffinity(0)) if settings.pin_decoders else None
    choice = settings.sandbox
    decoder = FfmpegDecoder(ffmpeg, cpus=cpus, layers=() if choice is SandboxChoice.OFF else ALL_LAYERS)
    layers = decoder.sandbox.layers
    _log.info("ffmpeg runs in a sandbox with these layers: %s", ", ".join(sorted(layers)) or "none")
    if choice is not SandboxChoice.OFF and (missing := "; ".join(missing_layers(layers))):
        if choice is SandboxChoice.REQUIRED:
            raise StartupError(f"WHOLETRACK_SANDBOX is set to required, but this machine does not support {missing}")
        _log.warning("the sandbox of ffmpeg does not have %s", missing)
    return decoder


def _leave_it_to_the_supervisor() -> None:
    """End the process, for whoever started it to start another: threads that hang in a driver cannot be ended."""
    threading.Timer(_LAST_WORDS_S, os._exit, (os.EX_SOFTWARE,)).start()
