"""OpenTelemetry spans of requests. The SDK is loaded only if an endpoint is configured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asgi_correlation_id import correlation_id
from fastapi import FastAPI

from wholetrack import __version__
from wholetrack.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = dict[str, str | int | float]

_NAME = "wholetrack"
# Health probes and metric scrapes would outnumber the predictions by far.
_NOT_TRACED = r"^[^:]+://[^/]+(/.*)?/(healthz|readyz|metrics|docs|openapi\.json)"


class Tracing:
    """Creates spans for the parts of a prediction, as children of the span of its request.

    The span of the request follows the semantic conventions for HTTP, and continues the trace of a client that sends a
    trace context (https://www.w3.org/TR/trace-context). Without an endpoint, spans do nothing.
    """

    def __init__(self, app: FastAPI, endpoint: str | None) -> None:
        """Instrument an application.

        Raises:
            StartupError: If the extra ``tracing`` is not installed.
        """
        self._provider = _provider(app, endpoint) if endpoint else None

    @contextmanager
    def span(self, name: str) -> Iterator[Attributes]:
        """Open a span for the duration of the block; entries added to the yielded dict become its attributes."""
        attributes: Attributes = {}
        if self._provider is None:
            yield attributes
            return
        with self._provider.get_tracer(_NAME, __version__).start_as_current_span(name) as span:
            span.set_attribute("wholetrack.request_id", correlation_id.get() or "")
            yield attributes
            span.set_attributes({f"wholetrack.{key}": value for key, value in attributes.items()})

    def close(self) -> None:
        """Export the remaining spans."""
        if self._provider:
            self._provider.shutdown()


def _provider(app: FastAPI, endpoint: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartupError(
            f"cannot send spans to {endpoint}: {error.name} is not installed; install the extra 'tracing', or unset "
            "WHOLETRACK_OTLP_ENDPOINT"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": _NAME, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=_NOT_TRACED, exclude_spans=["receive", "send"]
    )
    return provider
