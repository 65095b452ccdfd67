"""The deployment that clients talk to: the same HTTP application as without Ray."""

from __future__ import annotations

from functools import partial
from typing import Any

from prometheus_client.metrics_core import Metric
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.ray.cluster_metrics import ClusterMetrics, labelled
from wholetrack.ray.cluster_pipeline import ClusterPipeline
from wholetrack.ray.cluster_view import ClusterView
from wholetrack.ray.remote_networks import RemoteNetworks
from wholetrack.ray.replica import node_id, outside_event_loop, start_replica
from wholetrack.settings import Settings
from wholetrack.startup import configured_bundles, default_key, served_models

_REQUEST_ID = b"x-request-id"


@serve.ingress()
class Ingress:
    """Receives recordings, has them predicted, and responds. Live audio and ``/v2`` need no other replica to decode.

    Args:
        analysis: Handle of the deployment that decodes.
        network: Handle of the deployment of the networks.
    """

    def __init__(self, analysis: DeploymentHandle[Any], network: DeploymentHandle[Any]) -> None:
        self._settings = start_replica()
        self._metrics = ClusterMetrics()
        context = serve.get_replica_context()
        own = serve.get_deployment_handle(context.deployment, context.app_name)
        self._metrics.deployments = {"ingress": own, "analysis": analysis, "network": network}
        self._pipeline = outside_event_loop(partial(_cluster_pipeline, self._settings, analysis, network))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application."""
        settings = self._settings
        admission = Admission(
            settings.max_requests,
            max_wait_s=settings.max_wait_s,
            expected_wait_s=self._pipeline.expected_wait_s,
        )
        return OneRequestId(create_app(self._pipeline, settings, admission, self._metrics))

    async def metrics(self) -> list[Metric]:
        """Return the metrics of this replica."""
        return labelled(self._metrics.registry.collect())


def _cluster_pipeline(
    settings: Settings, analysis: DeploymentHandle[Any], network: DeploymentHandle[Any]
) -> ClusterPipeline:
    bundles = configured_bundles(settings)
    default = default_key(bundles, settings)
    models = served_models(bundles, default, settings, partial(RemoteNetworks, network))
    view = ClusterView(analysis, network)
    return ClusterPipeline(analysis, view, models, default_model=default, settings=settings, node_id=node_id())


class OneRequestId:
    """Middleware that leaves out the id of the request in a response, which Serve's proxy adds as well.

    The proxy also adds an id to a request that has none. If a client sends one that the application does not accept,
    the application chooses another one, which stays in the response.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        given = dict(scope.get("headers", ())).get(_REQUEST_ID)

        async def send_once(message: Message) -> None:
            if given is not None and "headers" in message:
                headers = [(name, value) for name, value in message["headers"] if (name, value) != (_REQUEST_ID, given)]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_once)
