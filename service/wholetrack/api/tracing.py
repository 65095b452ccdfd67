"""OpenTelemetry spans of requests, sent where an operator says; unless one does, its SDK is not even loaded."""

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

Facts = dict[str, str | int | float]

_NAME = "wholetrack"
# Probes and scrapes would drown the predictions.
_NOT_TRACED = r"^[^:]+://[^/]+/(healthz|readyz|metrics|docs|openapi\.json)"


class Tracing:
    """Spans around the parts of a prediction, children of the span of its request.

    The request's own span, named and attributed by the conventions for HTTP, continues the trace of a client that sends
    one (https://www.w3.org/TR/trace-context). Where no endpoint is given, a span is nothing.
    """

    def __init__(self, app: FastAPI, endpoint: str | None) -> None:
        """Trace an application.

        Raises:
            StartupError: if the extra ``tracing`` is not installed.
        """
        self._provider = _provider(app, endpoint) if endpoint else None

    @contextmanager
    def span(self, name: str) -> Iterator[Facts]:
        """A span for what is done meanwhile; the facts that are put in are its attributes."""
        facts: Facts = {}
        if self._provider is None:
            yield facts
            return
        with self._provider.get_tracer(_NAME, __version__).start_as_current_span(name) as span:
            span.set_attribute("wholetrack.request_id", correlation_id.get() or "")
            yield facts
            span.set_attributes({f"wholetrack.{fact}": value for fact, value in facts.items()})

    def close(self) -> None:
        """Send what was not yet sent."""
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
            f"spans cannot be sent to {endpoint}: {error.name} is missing; install the extra 'tracing', or unset "
            "WHOLETRACK_OTLP_ENDPOINT"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": _NAME, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=_NOT_TRACED, exclude_spans=["receive", "send"]
    )
    return provider
