"""The application for Ray Serve: ``serve run wholetrack.ray.serve:app``."""

from __future__ import annotations

from ray import serve

from wholetrack.ray.analysis import MAX_ONGOING as MAX_RECORDINGS
from wholetrack.ray.analysis import Analysis
from wholetrack.ray.ingress import Ingress
from wholetrack.ray.network import MAX_ONGOING as MAX_CALLS
from wholetrack.ray.network import Network

# The application has an access log of its own.
_LOGS = {"enable_access_log": False}

_NETWORK = serve.deployment(
    name="network",
    max_ongoing_requests=MAX_CALLS,
    graceful_shutdown_timeout_s=30,
    logging_config=_LOGS,
    ray_actor_options={"num_cpus": 1},
)(Network)

_ANALYSIS = serve.deployment(
    name="analysis",
    max_ongoing_requests=MAX_RECORDINGS,
    max_queued_requests=256,
    # Longer than WHOLETRACK_REQUEST_TIMEOUT_S, so that all recordings are finished.
    graceful_shutdown_timeout_s=660,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 16,
        # Recordings in progress and waiting, for each replica.
        "target_ongoing_requests": 2,
        # A long recording keeps a replica busy for minutes.
        "downscale_delay_s": 600,
    },
    logging_config=_LOGS,
    ray_actor_options={"num_cpus": 1},
)(Analysis)

_INGRESS = serve.deployment(
    name="ingress",
    # The application limits the predictions itself, and responds to the others.
    max_ongoing_requests=1024,
    graceful_shutdown_timeout_s=660,
    logging_config=_LOGS,
    ray_actor_options={"num_cpus": 0},
)(Ingress)


_networks = _NETWORK.bind()
app = _INGRESS.bind(_ANALYSIS.bind(_networks), _networks)
"""The application with the default options, which a configuration file can override."""
