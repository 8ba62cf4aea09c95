"""OpenTelemetry traces: a producer span for each publish, a consumer span for each attempt to handle, linked to it.

What is published while an attempt is handled becomes a child of its span, so a story is one trace. The trace context travels as
``traceparent`` (W3C Trace Context) in the metadata, and so across bridges too. Attributes are those of OpenTelemetry's semantic
conventions for messaging.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..arguments import describe
from ..errors import MissingExtraError
from ..event import Event
from ..instrument import Instrument
from ..outcome import DeadLetter
from ..recovery import error_text
from ..subscription import Subscription

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider


_attempt: ContextVar[Any] = ContextVar("rxbus.attempt", default=None)


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
        _all.add(self)
        self._lock = threading.Lock()
        self._open: dict[tuple[int, str], list[tuple[Span, int]]] = {}
        """By the event and the name of the subscription, the spans of attempts that haven't ended, with the id of the subscription:
        several, where an event makes several values that are handled, and tried again, at a time. ``_lock`` guards it."""

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
        if "tracestate" in event.metadata:
            carrier.setdefault("tracestate", "")  # that of another trace must not go on with this one
        return carrier

    def handling(self, event: Event[Any], subscription: Subscription, attempt: int) -> None:
        """Begins a consumer span, current while the handler runs."""
        span = self._start(event, subscription.name, {"rxbus.attempt": attempt})
        with self._lock:
            self._open.setdefault((id(event), subscription.name), []).append((span, id(subscription)))
        _attempt.set(span)
        self._context.attach(self._trace.set_span_in_context(span))  # the context is this attempt's own: nothing to detach

    def handled(self, event: Event[Any], subscription: Subscription, seconds: float) -> None:
        """Ends the attempt's span."""
        self._end(event, subscription.name)

    def failed(self, event: Event[Any], subscription: Subscription, error: BaseException, attempt: int) -> None:
        """Ends the attempt's span with its error; for an event that was refused it makes one that says so."""
        span = self._take(event, subscription.name)
        if span is None:
            span = self._start(event, subscription.name, {"rxbus.attempt": attempt})
        self._record(span, error)

    def dropped(self, event: Event[Any], subscription: Subscription, reason: str) -> None:
        """Ends what had begun."""
        self._end(event, subscription.name)

    def dead_lettered(self, letter: DeadLetter) -> None:
        """Ends what had begun besides the attempt that failed."""
        self._end(letter.event, letter.subscription)

    def disposed(self, subscription: Subscription) -> None:
        """Ends what it had begun and left to others of its group."""
        with self._lock:
            keys = list(filter(lambda key: self._open[key][0][1] == id(subscription), self._open))
            left = [span for key in keys for span, _ in self._open.pop(key)]
        for span in left:
            span.end()

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

    def _take(self, event: Event[Any], subscription: str) -> Span | None:
        """The open span of the attempt whose context this is, or the oldest of that event."""
        mine = _attempt.get()
        with self._lock:
            spans = self._open.get((id(event), subscription))
            if not spans:
                return None
            found = next((one for one in spans if one[0] is mine), spans[0])
            spans.remove(found)
            if not spans:
                del self._open[id(event), subscription]
            return found[0]

    def _end(self, event: Event[Any], subscription: str) -> None:
        with self._lock:
            spans = self._open.pop((id(event), subscription), ())
        for span, _ in spans:
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


_all: weakref.WeakSet[OpenTelemetryInstrument] = weakref.WeakSet()


def _begin_anew() -> None:
    for instrument in list(_all):
        instrument._lock = threading.Lock()  # in the child of a fork nobody holds it any more


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
