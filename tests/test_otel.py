"""`OpenTelemetryInstrument` beside the reference SDK."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from reactivex import operators as ops

from rxbus import Event, EventBus, Overflow, Retry
from rxbus.instruments import OpenTelemetryInstrument
from tests.support import LIMIT, Gate


class Traces:
    """A tracer provider that keeps its spans in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.instrument = OpenTelemetryInstrument(self.provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """Those that have ended, in the order of their ends."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Of these, those of one name, in the order of their beginnings."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_time or 0)


@pytest.fixture
def traces() -> Traces:
    """Fresh."""
    return Traces()


def context_of(span: ReadableSpan) -> trace.SpanContext:
    """Where it is in its trace."""
    found = span.get_span_context()
    assert found is not None
    return found


class TestSpans:
    """Producer and consumer."""

    def test_a_story_is_one_trace(self, traces: Traces) -> None:
        """Each consumer span is linked to the producer span of its event, and what its handler publishes is its child."""
        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("user.query", lambda event: event.payload.upper(), to="report", name="research")
            bus.subscribe("report", lambda _: None, name="send")
            event = bus.publish("user.query", "tides")
            bus.drain(LIMIT)
        (asked,), (researched,) = traces.named("publish user.query"), traces.named("process user.query")
        (reported,), (sent,) = traces.named("publish report"), traces.named("process report")
        assert 4 == len(traces.spans)
        assert [SpanKind.PRODUCER, SpanKind.CONSUMER] == [asked.kind, researched.kind]
        assert [context_of(asked).span_id] == [link.context.span_id for link in researched.links]
        assert [context_of(reported).span_id] == [link.context.span_id for link in sent.links]
        assert reported.parent is not None
        assert context_of(researched).span_id == reported.parent.span_id
        assert 1 == len({context_of(span).trace_id for span in traces.spans})
        assert f"{context_of(asked).span_id:016x}" == event.metadata["traceparent"].split("-")[2]

    def test_attributes(self, traces: Traces) -> None:
        """Those of the messaging conventions."""
        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("user.query", lambda event: None, name="audit")
            event = bus.publish("user.query", "tides")
            bus.drain(LIMIT)
        about = {
            "messaging.system": "rxbus",
            "messaging.destination.name": "user.query",
            "messaging.message.id": event.id,
            "messaging.message.conversation_id": event.id,
        }
        (asked,), (audited,) = traces.named("publish user.query"), traces.named("process user.query")
        assert {"messaging.operation.name": "publish", "messaging.operation.type": "send", **about} == dict(asked.attributes or {})
        assert {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.subscription.name": "audit",
            "rxbus.attempt": 1,
            **about,
        } == dict(audited.attributes or {})

    def test_errors_are_on_the_span(self, traces: Traces) -> None:
        """Each attempt has a span of its own, and a failed one its error, with its traceback."""
        calls: list[int] = []

        def twice(_: Event[int]) -> None:
            calls.append(1)
            if len(calls) < 3:
                raise ValueError("not yet")

        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("a", twice, retry=Retry(3, backoff=0.001))
            bus.publish("a", 1)
            bus.drain(LIMIT)
        first, second, third = traces.named("process a")
        assert [1, 2, 3] == [(span.attributes or {})["rxbus.attempt"] for span in (first, second, third)]
        assert [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET] == [s.status.status_code for s in (first, second, third)]
        assert "ValueError: not yet" == first.status.description
        assert "ValueError" == (first.attributes or {})["error.type"]
        (recorded,) = first.events
        assert "exception" == recorded.name
        assert "in twice" in str((recorded.attributes or {})["exception.stacktrace"])
        assert 3 == len({context_of(span).span_id for span in (first, second, third)})

    def test_a_refused_event_has_a_span_that_says_so(self, traces: Traces) -> None:
        """With the error, and attempt 0."""
        with EventBus(instruments=[traces.instrument], capacity=1, overflow=Overflow.FAIL) as bus:
            gate = Gate()
            bus.subscribe("a", gate)
            bus.publish("a", 0)
            gate.wait_until_entered()
            bus.publish_many("a", [1, 2])
            (refused,) = traces.named("process a")
            assert 0 == (refused.attributes or {})["rxbus.attempt"]
            assert "rxbus.errors.MailboxFullError" == (refused.attributes or {})["error.type"]
            gate.open()

    def test_an_error_that_cant_be_told(self, traces: Traces) -> None:
        """Its span ends all the same."""

        class Unspeakable(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        def failing(_: Event[int]) -> None:
            raise Unspeakable

        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("a", failing)
            bus.publish("a", 1)
            bus.drain(LIMIT)
        (span,) = traces.named("process a")
        assert StatusCode.ERROR is span.status.status_code

    def test_several_attempts_of_one_event_at_a_time(self, traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
        """Values of one event that fail and are tried again side by side: each span ends, and ends once."""
        calls: Counter[str] = Counter()

        def failing(value: str) -> None:
            calls[value] += 1
            if calls[value] < 3:
                raise ValueError(value)

        with EventBus(instruments=[traces.instrument]) as bus:
            values = ops.flat_map(lambda event: [f"{event.payload}/{n}" for n in range(4)])
            bus.subscribe("a", failing, through=values, concurrency=4, retry=Retry(3, backoff=0.0005))
            bus.publish_many("a", range(30))
            bus.drain(LIMIT)
            assert {} == traces.instrument._open
        spans = traces.named("process a")
        assert 30 * 4 * 2 == sum(span.status.status_code is StatusCode.ERROR for span in spans)
        assert [] == [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]

    @pytest.mark.parametrize("options", [{}, {"concurrency": 4}, {"group": "g"}], ids=["plain", "concurrent", "group"])
    def test_every_span_ends(self, traces: Traces, options: dict[str, Any]) -> None:
        """Nothing is kept of an event that is over."""
        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("a", lambda event: 1 // (event.payload % 3), retry=Retry(2, backoff=0.0005), **options)
            bus.publish_many("a", range(30))
            bus.drain(LIMIT)
            assert {} == traces.instrument._open
        assert 40 == len(traces.named("process a"))
        assert 20 == sum(span.status.status_code is StatusCode.ERROR for span in traces.named("process a"))


class TestContext:
    """What is current where."""

    def test_handlers_see_their_span(self, traces: Traces) -> None:
        """Spans that they make, attributes that they set and baggage of the publisher are where they belong."""
        seen: list[object] = []

        def handler(_: Event[int]) -> None:
            trace.get_current_span().set_attribute("mine", True)
            seen.append(baggage.get_baggage("user"))
            with traces.provider.get_tracer("user").start_as_current_span("work"):
                pass

        tracer = traces.provider.get_tracer("user")
        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("a", handler)
            token = context.attach(baggage.set_baggage("user", "ada"))
            with tracer.start_as_current_span("request"):
                bus.publish("a", 1)
            context.detach(token)
            bus.drain(LIMIT)
        (request,), (published,), (handled,), (work,) = (traces.named(n) for n in ("request", "publish a", "process a", "work"))
        assert published.parent is not None
        assert context_of(request).span_id == published.parent.span_id
        assert work.parent is not None
        assert context_of(handled).span_id == work.parent.span_id
        assert (handled.attributes or {})["mine"] is True
        assert ["ada"] == seen
        assert not trace.get_current_span().get_span_context().is_valid

    def test_a_trace_that_came_from_elsewhere_goes_on(self, traces: Traces) -> None:
        """`traceparent` in the metadata of what is published is the parent of its producer span."""
        came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("a", lambda _: None)
            event = bus.publish("a", 1, metadata={"traceparent": came})
            complete = bus.publish(Event("a", 2, {"traceparent": came}))
            bus.drain(LIMIT)
        assert 4 == len(traces.spans)
        assert {"0af7651916cd43dd8448eb211c80319c"} == {f"{context_of(span).trace_id:032x}" for span in traces.spans}
        assert {"b7ad6b7169203331"} == {f"{span.parent.span_id:016x}" for span in traces.named("publish a") if span.parent}
        assert came != event.metadata["traceparent"] != complete.metadata["traceparent"]

    def test_another_traces_state_stays_behind(self, traces: Traces) -> None:
        """What goes out under a span of one's own doesn't carry the `tracestate` of the trace that it came from."""
        came = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "other=1"}
        with EventBus(instruments=[traces.instrument]) as bus:
            with traces.provider.get_tracer("user").start_as_current_span("mine"):
                own = bus.publish("a", 1, metadata=came)
            handed_on = bus.publish("a", 1, metadata=came)
        assert ("", "other=1") == (own.metadata["tracestate"], handed_on.metadata["tracestate"])

    @pytest.mark.parametrize("value", ["nonsense", 5, None, "00-0-0-0"], ids=repr)
    def test_a_broken_traceparent_harms_nothing(self, traces: Traces, value: object) -> None:
        """A new trace begins."""
        with EventBus(instruments=[traces.instrument]) as bus:
            bus.subscribe("a", lambda _: None)
            bus.publish("a", 1, metadata={"traceparent": value})
            bus.drain(LIMIT)
        assert 2 == len(traces.spans)
        assert 1 == len({context_of(span).trace_id for span in traces.spans})


class TestExtra:
    """The package is optional."""

    def test_is_imported_when_an_instrument_is_made(self) -> None:
        """Not before."""
        code = "import sys, rxbus.instruments; print('opentelemetry' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert "False" == done.stdout.strip()

    def test_says_what_is_missing(self) -> None:
        """The error says how to install it."""
        code = """\
import sys
sys.modules["opentelemetry"] = None
from rxbus import MissingExtraError
from rxbus.instruments import OpenTelemetryInstrument
try:
    OpenTelemetryInstrument()
except MissingExtraError as error:
    print(error, error.extra, isinstance(error, ImportError))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert "OpenTelemetryInstrument needs a package that isn't installed: pip install 'rxbus[otel]' otel True" == done.stdout.strip()

    def test_no_tracer_provider(self) -> None:
        """The message says what was expected."""
        provider: Any = "jaeger"
        with pytest.raises(TypeError, match="tracer_provider must be an OpenTelemetry TracerProvider, got 'jaeger'"):
            OpenTelemetryInstrument(provider)
