"""Opens models whose networks run on a server of the Open Inference Protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from wholetrack.contracts import ModelCard, Rows, Windows, separate_windows
from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.devices import OpenedModel
from wholetrack.inference.network_outputs import check_golden_outputs, interpreted
from wholetrack.inference.open_inference import OpenInferenceClient, ProtocolError
from wholetrack.inference.remote import RemoteSession, Transport
from wholetrack.inference.worker import Classifier, UnreachableError
from wholetrack.settings import Precision, Settings

DEVICE = "remote"
"""Name of the device."""

# This service as a server returns the outputs as the engine needs them, under names of its own.
_THIS_SERVICE = "wholetrack"
# The largest body that this service accepts as a server, less the JSON. Triton has no such limit.
_MAX_BODY_BYTES = (8 << 20) - (64 << 10)
_FLOAT32_BYTES = 4
# Each run waits for the network, not for a processor.
_RUNS_AT_ONCE = 4
# A server that starts together with this service may be ready later.
_START_TIMEOUT_S = 30.0
_PAUSE_S = 0.5
# The engine considers a run hung after its time limit, so that the attempts of a session have to end before.
_SHARE_OF_TIMEOUT = 0.8

T = TypeVar("T")


class RemoteDevices:
    """Opens models on a server.

    Args:
        client: Sends requests to the server.
        settings: Time limit of a run.
        start_timeout_s: Time in seconds that the server may take to respond at first.

    Raises:
        StartupError: If the server cannot be used.
    """

    def __init__(
        self, client: OpenInferenceClient, settings: Settings, *, start_timeout_s: float = _START_TIMEOUT_S
    ) -> None:
        self._client = client
        self._timeout_s = _SHARE_OF_TIMEOUT * settings.device_timeout_s
        self._deadline = time.monotonic() + start_timeout_s
        try:
            self._server = self._patiently(lambda left_s: client.server(timeout_s=left_s))
        except (ProtocolError, UnreachableError) as error:
            raise StartupError(f"WHOLETRACK_INFERENCE_URL: {error}") from error

    def open(self, bundle: Bundle) -> OpenedModel:
        """Open a bundle.

        Raises:
            UnavailableModelError: If the server does not serve the model, or gives wrong outputs.
        """
        session = self._session(bundle.card)
        try:
            self._check_interface(bundle.card)
            check_golden_outputs(session, bundle, tolerance=bundle.card.golden.tolerance)
        except (ProtocolError, UnreachableError) as error:
            raise UnavailableModelError(
                f"{bundle.card.name} {bundle.card.version} does not run on the server: {error}",
                device=DEVICE,
                reason="the server cannot run the network",
            ) from error
        return OpenedModel([session] * _RUNS_AT_ONCE)

    def reopen(self, bundle: Bundle, failed: Classifier) -> Classifier:
        """Return a session in place of a failed one. It connects again by itself."""
        del failed
        return self._session(bundle.card)

    def _session(self, card: ModelCard) -> RemoteSession:
        window_bytes = _FLOAT32_BYTES * sum(int(np.prod(entry.shape[1:])) for entry in card.inputs)
        max_batch = max(1, _MAX_BODY_BYTES // window_bytes) if self._server.accepts_binary else 1
        return RemoteSession(
            card,
            self._transport(card),
            device=DEVICE,
            precision=Precision.FLOAT32,
            timeout_s=self._timeout_s,
            max_batch=max_batch,
        )

    def _transport(self, card: ModelCard) -> Transport:
        names = [entry.name for entry in card.inputs]

        def send(windows: Windows, *, timeout_s: float) -> Rows:
            outputs = self._client.infer(
                card.name,
                card.version,
                dict(zip(names, separate_windows(windows).arrays, strict=True)),
                self._output_names(card),
                binary=self._server.accepts_binary,
                timeout_s=timeout_s,
            )
            return Rows(tuple(outputs)) if self._server.name == _THIS_SERVICE else interpreted(outputs, card.outputs)

        return send

    def _output_names(self, card: ModelCard) -> tuple[str, ...]:
        return card.outputs.kinds if self._server.name == _THIS_SERVICE else card.outputs.names

    def _check_interface(self, card: ModelCard) -> None:
        """Compare the inputs and outputs of the model on the server with those of ``model.json``.

        Raises:
            ProtocolError: If they differ.
        """
        found = self._patiently(lambda left_s: self._client.model(card.name, card.version, timeout_s=left_s))
        inputs = {entry.name: entry.shape[1:] for entry in card.inputs}
        outputs = dict(zip(self._output_names(card), card.output_shapes, strict=True))
        for kind, on_server, expected in (("inputs", found.inputs, inputs), ("outputs", found.outputs, outputs)):
            if on_server != expected:
                raise ProtocolError(f"its {kind} are {on_server}, and model.json says {expected}")

    def _patiently(self, ask: Callable[[float], T]) -> T:
        """Ask until the server responds, but not longer than it may take to start."""
        while True:
            left_s = self._deadline - time.monotonic()
            try:
                return ask(max(left_s, _PAUSE_S))
            except UnreachableError:
                if left_s <= _PAUSE_S:
                    raise
            time.sleep(_PAUSE_S)


def remote_devices(settings: Settings) -> RemoteDevices:
    """Return what opens models on the server that the settings name.

    Raises:
        StartupError: If the server cannot be used.
    """
    assert settings.inference_url is not None
    key = settings.inference_key.get_secret_value() if settings.inference_key else None
    return RemoteDevices(OpenInferenceClient(str(settings.inference_url), key=key), settings)
