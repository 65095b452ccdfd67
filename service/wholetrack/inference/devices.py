"""Which device runs each model: the GPUs, if the settings allow it and the model runs there, else the CPU.

All models are opened at start-up, one after the other, the default first. If a model were opened on first use, that
request would wait for it, memory would be taken while the service is busy, and nobody would know before whether the
model runs at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.cuda import gpu_present, load_cuda
from wholetrack.inference.gpu_memory import GpuMemory, MemoryBudget, measure_gpu
from wholetrack.inference.session import Session, open_session
from wholetrack.inference.worker import Classifier, has_lost_context
from wholetrack.settings import DeviceChoice, Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model on its device.

    Attributes:
        sessions: One for each worker. Workers on the CPU share one.
        min_share: Number of consecutive windows of a track that cost less together than apart.
        cpu_fallback: Why it runs on the CPU, if the device is ``auto`` and there is a GPU; None otherwise.
    """

    sessions: Sequence[Classifier]
    min_share: int = 1
    cpu_fallback: str | None = None


class ModelOpener(Protocol):
    """Opens models where they run."""

    def open(self, bundle: Bundle) -> OpenedModel:
        """Open a bundle.

        Raises:
            UnavailableModelError: If the model does not run.
            StartupError: If the network contradicts the bundle.
        """

    def reopen(self, bundle: Bundle, failed: Classifier) -> Classifier:
        """Open a new session in place of a failed one.

        Raises:
            StartupError: If that is not possible.
        """


class Devices:
    """Opens models on the configured devices. The models on a GPU share its memory.

    With ``auto``, the first model decides whether the GPUs are used. A later model that does not run there runs on the
    CPU.

    Args:
        settings: Devices, memory, batch sizes and precision.
        n_models: Number of models that will be opened.
        measure: Returns the memory of a GPU.
        present: Returns whether there is a GPU.

    Raises:
        StartupError: If a configured GPU cannot be used; never with ``auto``.
    """

    def __init__(
        self,
        settings: Settings,
        n_models: int,
        *,
        measure: Callable[[int], GpuMemory] = measure_gpu,
        present: Callable[[], bool] = gpu_present,
    ) -> None:
        self._settings = settings
        self._n_left = n_models
        self._gpu_present = present
        self._budgets: dict[str, MemoryBudget] = {}
        self._limits: dict[tuple[str, str, str], int] = {}
        self._gpus_proven = False
        self._cpu_fallback: str | None = None
        if settings.device is not DeviceChoice.CPU:
            try:
                self._find_gpus(measure)
            except StartupError as error:
                if settings.device is DeviceChoice.CUDA:
                    raise
                self._give_up_gpus(error)

    def open(self, bundle: Bundle) -> OpenedModel:
        """Open a bundle on all configured GPUs, or on the CPU.

        Raises:
            UnavailableModelError: If the model does not run; with ``auto``, if it does not run on the CPU either.
            StartupError: If the network contradicts the bundle.
        """
        n_left, self._n_left = self._n_left, self._n_left - 1
        cpu_fallback = self._cpu_fallback
        if self._budgets:
            try:
                sessions = self._open_on_gpus(bundle, n_left)
            except UnavailableModelError as error:
                cpu_fallback = self._fall_back(bundle, error)
            else:
                self._gpus_proven = True
                return OpenedModel(sessions, sessions[0].min_share)
        session = open_session(bundle, self._settings)
        return OpenedModel([session] * self._settings.cpu_threads, session.min_share, cpu_fallback)

    def reopen(self, bundle: Bundle, failed: Classifier) -> Session:
        """Open a new session on the device of a failed one, never on another device.

        Raises:
            StartupError: If the device cannot be used.
        """
        limit = self._limits.get((bundle.card.name, bundle.card.version, failed.device))
        return open_session(bundle, self._settings, failed.device, memory_limit_bytes=limit)

    def _find_gpus(self, measure: Callable[[int], GpuMemory]) -> None:
        load_cuda()
        limit_mb = self._settings.cuda_memory_mb
        self._budgets = {
            f"{DeviceChoice.CUDA}:{number}": MemoryBudget(partial(measure, number), limit_mb and limit_mb << 20)
            for number in self._settings.cuda_devices
        }

    def _open_on_gpus(self, bundle: Bundle, n_left: int) -> list[Session]:
        n_sessions = self._settings.cuda_sessions
        # Most requests are for the default model, which comes first.
        part = 1 / n_left if self._gpus_proven else 1 / min(n_left, 2)
        sessions = []
        for device, budget in self._budgets.items():
            with budget.sharing(part / n_sessions) as limit:
                self._limits[bundle.card.name, bundle.card.version, device] = limit
                sessions += [
                    open_session(bundle, self._settings, device, memory_limit_bytes=limit) for _ in range(n_sessions)
                ]
        return sessions

    def _fall_back(self, bundle: Bundle, error: UnavailableModelError) -> str | None:
        """Return why a model that does not run on the GPUs runs on the CPU, if there is a GPU.

        Raises:
            UnavailableModelError: If it may not run on the CPU.
            StartupError: If it took the GPUs from the models that were opened before.
        """
        if self._gpus_proven and has_lost_context(error):
            raise StartupError(f"{error}; the other models can no longer use the GPU either") from error
        if self._settings.device is DeviceChoice.CUDA:
            raise error
        if not self._gpus_proven:
            self._give_up_gpus(error)
            return self._cpu_fallback
        _log.warning("device=auto: %s uses the CPU, not CUDA: %s", bundle.card.name, error)
        return error.reason

    def _give_up_gpus(self, error: StartupError) -> None:
        """Run all models on the CPU."""
        self._budgets = {}
        if not self._gpu_present():
            _log.info("device=auto: using the CPU, not CUDA: %s", error)
            return
        _log.warning("device=auto: using the CPU, not CUDA, although there is a GPU: %s", error)
        if isinstance(error, UnavailableModelError):
            self._cpu_fallback = f"the default model does not run on the GPU: {error.reason}"
        else:
            self._cpu_fallback = str(error)
