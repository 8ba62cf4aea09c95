"""OpenTelemetry traces: a producer span for each publish, a consumer span for each attempt to handle, linked to it.

What is published while an attempt is handled becomes a child of its span, so a story is one trace. The trace context travels as
``traceparent`` (W3C Trace Context) in the metadata, and so across bridges too. Attributes are those of OpenTelemetry's semantic
conventions for messaging.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..arguments import describe
from ..errors import MissingExtraError
from ..event import Event
from ..instrument import Instrument
from ..recovery import error_text
from ..subscription import Subscription

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider


class OpenTelemetryInstrument(Instrument):
    """Traces publishing and handling; needs the extra ``otel``.

    ``tracer_provider`` is the global one unless told. Spans: ``publish <topic>`` (PRODUCER), whose context goes into the
    event's metadata as ``traceparent``, and ``process <topic>`` (CONSUMER) for each attempt, with a link to it; a failed
    attempt has its error recorded. Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/

    Raises: `MissingExtraError` without the package, `TypeError` for what is no tracer provider.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtraError("OpenTelemetryInstrument", "otel") from error
        if tracer_provider is not None and not callable(getattr(tracer_provider, "get_tracer", None)):
            raise TypeError(f"tracer_provider must be an OpenTelemetry TracerProvider, got {describe(tracer_provider)}")
        self._context = context
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = trace.get_tracer("rxbus", tracer_provider=tracer_provider)
        self._open: dict[tuple[int, int], Span] = {}
        """By event and subscription, the spans of attempts that haven't ended."""

    def publishing(self, event: Event[Any]) -> Mapping[str, str]:
        """Makes the producer span, and hands its context on in the metadata."""
        here = self._context.get_current()
        if not self._trace.get_current_span(here).get_span_context().is_valid:
            here = self._extract(event, here)  # from another process, or from whoever published it
        span = self._tracer.start_span(
            f"publish {event.topic}",
            here,
            kind=self._trace.SpanKind.PRODUCER,
            attributes={"messaging.operation.name": "publish", "messaging.operation.type": "send", **_about(event)},
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span, here))
        span.end()
        return carrier

    def handling(self, event: Event[Any], subscription: Subscription, attempt: int) -> None:
        """Begins a consumer span, current while the handler runs."""
        span = self._start(event, subscription.name, {"rxbus.attempt": attempt})
        previous, self._open[id(event), id(subscription)] = self._open.get((id(event), id(subscription))), span
        if previous is not None:
            previous.end()
        self._context.attach(self._trace.set_span_in_context(span))  # the context is this attempt's own: nothing to detach

    def handled(self, event: Event[Any], subscription: Subscription, seconds: float) -> None:
        """Ends the attempt's span."""
        self._end(event, subscription)

    def failed(self, event: Event[Any], subscription: Subscription, error: BaseException, attempt: int) -> None:
        """Ends the attempt's span with its error; for an event that was refused it makes one that says so."""
        span = self._open.pop((id(event), id(subscription)), None)
        if span is None:
            span = self._start(event, subscription.name, {"rxbus.attempt": attempt})
        self._record(span, error)

    def dropped(self, event: Event[Any], subscription: Subscription, reason: str) -> None:
        """Ends what had begun."""
        self._end(event, subscription)

    def disposed(self, subscription: Subscription) -> None:
        """Ends what it had begun and left to others of its group."""
        for key in [key for key in list(self._open) if key[1] == id(subscription)]:
            self._open.pop(key).end()

    # -- spans

    def _start(self, event: Event[Any], subscription: str, more: Mapping[str, Any]) -> Span:
        ambient = self._context.get_current()
        origin = self._extract(event, ambient)
        producer = self._trace.get_current_span(origin).get_span_context()
        return self._tracer.start_span(
            f"process {event.topic}",
            origin,
            kind=self._trace.SpanKind.CONSUMER,
            attributes={
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.subscription.name": subscription,
                **_about(event),
                **more,
            },
            links=[self._trace.Link(producer)] if producer.is_valid else None,
        )

    def _extract(self, event: Event[Any], default: Context) -> Context:
        """The context that the event's metadata names, or the default."""
        carrier = {key: value for key in ("traceparent", "tracestate") if isinstance(value := event.metadata.get(key), str)}
        return self._propagator.extract(carrier, default) if carrier else default

    def _end(self, event: Event[Any], subscription: Subscription) -> None:
        span = self._open.pop((id(event), id(subscription)), None)
        if span is not None:
            span.end()

    def _record(self, span: Span, error: BaseException) -> None:
        kind = type(error)
        span.set_attribute("error.type", kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")
        try:
            span.record_exception(error)
        except BaseException:
            pass  # its `str` raises
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error_text(error)))
        span.end()


def _about(event: Event[Any]) -> dict[str, str]:
    return {
        "messaging.system": "rxbus",
        "messaging.destination.name": event.topic,
        "messaging.message.id": event.id,
        "messaging.message.conversation_id": event.correlation_id,
    }
