"""`Metrics`, read by a parser that is not ours, and beside the statistics."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from reactivex.testing import TestScheduler

from rxbus import Event, EventBus, Overflow, Retry
from rxbus.instruments import Metrics
from rxbus.registry import PAST_KEPT
from tests.support import LIMIT, Gate


class _Page:
    """What a foreign parser makes of the text."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """Of the one sample with that name and exactly these labels."""
        found = [sample.value for sample in self.samples if sample.name == name and sample.labels == labels]
        assert len(found) <= 1
        return found[0] if found else None


def read(metrics: Metrics) -> _Page:
    """The page as it is now."""
    return _Page(metrics.openmetrics())


def assert_agrees(page: _Page, watched: EventBus, **labels: str) -> None:
    """Every number of the statistics is on the page, and the histograms count what was handled."""
    statistics = watched.statistics()
    for topic in statistics.topics.values():
        for metric, expected in {
            "rxbus_events_published_total": topic.published,
            "rxbus_topic_subscribers": topic.subscribers,
            "rxbus_topic_handled_total": topic.handled,
            "rxbus_topic_failed_total": topic.failed,
            "rxbus_topic_dropped_total": topic.dropped,
        }.items():
            assert expected == page.value(metric, topic=topic.name, **labels), (metric, topic.name)
    for one in statistics.subscriptions.values():
        for metric, expected in {
            "rxbus_events_offered_total": one.offered,
            "rxbus_events_handled_total": one.handled,
            "rxbus_handler_failures_total": one.failed,
            "rxbus_events_dropped_total": one.dropped,
            "rxbus_events_retried_total": one.retried,
            "rxbus_events_pending": one.pending,
            "rxbus_queue_depth": one.queued,
            "rxbus_queue_capacity": one.capacity,
            "rxbus_handling_seconds_total": one.handling_time,
            "rxbus_waiting_seconds_total": one.waiting_time,
        }.items():
            assert expected == page.value(metric, topic=one.pattern, subscription=one.name, **labels), (metric, one.name)
        counted = page.value("rxbus_handler_duration_seconds_count", topic=one.pattern, subscription=one.name, **labels)
        assert one.handled == (counted or 0), one.name


def fails_on_three(event: Event[int]) -> None:
    """Raises for each third number."""
    if event.payload % 3 == 0:
        raise ValueError(event.payload)


class TestPage:
    """What a scraper reads."""

    def test_agrees_with_the_statistics(self) -> None:
        """For exact and wildcard subscriptions, groups, several at a time, past ones, and a topic without any."""
        metrics = Metrics()
        with EventBus(instruments=[metrics], capacity=5, overflow=Overflow.DROP_OLDEST) as bus:
            bus.subscribe("a.x", fails_on_three, name="plain", retry=Retry(2, backoff=0.0005))
            bus.subscribe("a.*", fails_on_three, name="pattern")
            bus.subscribe("a.x", fails_on_three, name="crowd", concurrency=3)
            bus.subscribe("a.x", fails_on_three, name="one", group="g")
            bus.subscribe("a.x", fails_on_three, name="two", group="g")
            past = bus.subscribe("a.y", fails_on_three, name="past")
            bus.topic("nobody")
            for number in range(50):
                bus.publish("a.x" if number % 2 else "a.y", number)
            bus.drain(LIMIT)
            past.dispose()
            page = read(metrics)
            assert_agrees(page, bus)
            assert len(bus.dead_letters) == page.value("rxbus_dead_letters_total", reason="failed") == page.value("rxbus_dead_letters_held")
            assert 0 == page.value("rxbus_dead_letters_evicted_total")
            assert 1024 == page.value("rxbus_workers_bound")
            assert bus.statistics().dead_letters == {letter.reason: len(bus.dead_letters) for letter in bus.dead_letters}

    def test_after_the_close(self) -> None:
        """The counters of the closed bus are still there."""
        metrics = Metrics()
        with EventBus(instruments=[metrics]) as bus:
            bus.subscribe("a", fails_on_three, name="plain")
            bus.publish_many("a", range(10))
        page = read(metrics)
        assert 6 == page.value("rxbus_events_handled_total", topic="a", subscription="plain")
        assert_agrees(page, bus)

    def test_a_name_that_is_used_again(self) -> None:
        """The new subscription begins at nothing, in the histograms as in the statistics."""
        metrics = Metrics()
        with EventBus(instruments=[metrics]) as bus:
            first = bus.subscribe("a", lambda _: None, name="same")
            bus.publish_many("a", range(5))
            bus.drain(LIMIT)
            first.dispose()
            assert_agrees(read(metrics), bus)
            bus.subscribe("a", lambda _: None, name="same")
            bus.publish("a", 1)
            bus.drain(LIMIT)
            page = read(metrics)
            assert 1 == page.value("rxbus_handler_duration_seconds_count", topic="a", subscription="same")
            assert_agrees(page, bus)

    def test_a_name_that_is_used_again_for_nothing(self) -> None:
        """Its histogram isn't that of the one before, neither while it lives nor after."""
        metrics = Metrics()
        with EventBus(instruments=[metrics]) as bus:
            first = bus.subscribe("a", lambda _: None, name="same")
            bus.publish_many("a", range(3))
            bus.drain(LIMIT)
            first.dispose()
            second = bus.subscribe("a", lambda _: None, name="same")
            assert_agrees(read(metrics), bus)
            second.dispose()
            assert_agrees(read(metrics), bus)

    def test_past_subscriptions_of_one_bus_dont_push_out_those_of_another(self) -> None:
        """Each bus keeps as many as its statistics do."""
        metrics = Metrics()
        with EventBus("one", instruments=[metrics]) as one, EventBus("two", instruments=[metrics]) as two:
            with one.subscribe("a", lambda _: None, name="kept"):
                one.deliver("a", 1)
            for number in range(PAST_KEPT + 5):
                two.subscribe("a", lambda _: None, name=f"past {number}").dispose()
            assert_agrees(read(metrics), one, bus="one")
            assert PAST_KEPT == len(metrics._past[id(two)])

    def test_a_disposed_subscription_isnt_kept_alive(self) -> None:
        """Only its numbers are."""
        metrics = Metrics()
        with EventBus(instruments=[metrics]) as bus:
            subscription = bus.subscribe("a", lambda _: None, name="short")
            bus.publish("a", 1)
            bus.drain(LIMIT)
            subscription.dispose(wait=LIMIT)
            gone = weakref.ref(subscription)
            del subscription
            for _ in range(100):
                gc.collect()
                if gone() is None:
                    break
                time.sleep(0.01)
            assert gone() is None
            assert 1 == read(metrics).value("rxbus_handler_duration_seconds_count", topic="a", subscription="short")

    def test_before_anything_happened(self) -> None:
        """A page without samples of topics is valid too, and so is one without a bus."""
        assert {} == {name: f.samples for name, f in read(Metrics()).families.items() if f.samples}
        metrics = Metrics()
        with EventBus(instruments=[metrics]):
            assert 0 == read(metrics).value("rxbus_dead_letters_held")
        assert metrics.openmetrics().endswith("# EOF\n")

    def test_hostile_names(self) -> None:
        """Quotes, backslashes and line ends in a subscription's name, and letters of any script, come out as they went in."""
        metrics = Metrics()
        name = 'a "quoted" \\ name\nin two lines \\n'
        half = "half a pair: \ud800"
        with EventBus(instruments=[metrics]) as bus:
            bus.subscribe("größe.日本", lambda _: None, name=name)
            bus.publish("größe.日本", 1)
            bus.drain(LIMIT)
            assert 1 == read(metrics).value("rxbus_events_handled_total", topic="größe.日本", subscription=name)
            bus.subscribe("a", lambda _: None, name=half)
            assert metrics.openmetrics().encode()
            assert 0 == read(metrics).value("rxbus_events_handled_total", topic="a", subscription="half a pair: \\ud800")

    def test_several_buses(self) -> None:
        """Then each sample says of which, and two of one name are told apart."""
        metrics = Metrics()
        with EventBus("one", instruments=[metrics]) as one, EventBus("one", instruments=[metrics]) as two:
            one.subscribe("a", fails_on_three, name="same")
            two.subscribe("a", fails_on_three, name="same")
            one.publish_many("a", range(4))
            two.publish_many("a", range(10))
            one.drain(LIMIT)
            two.drain(LIMIT)
            page = read(metrics)
            assert_agrees(page, one, bus="one")
            assert_agrees(page, two, bus="one#2")


class TestHistograms:
    """How long things take."""

    def test_duration_and_age_in_virtual_time(self) -> None:
        """Both are told by the first bucket whose bound is at least as large; the sum is exact."""
        clock = TestScheduler()
        metrics = Metrics(buckets=(1.0, 10.0, 100.0))
        bus = EventBus(instruments=[metrics], scheduler=clock)
        bus._now = lambda: clock.now.timestamp()
        bus.subscribe("a", lambda _: None, name="audit")
        bus.publish("a", 1)
        clock.advance_by(10)
        bus.subscriptions["audit"].pause()
        bus.publish("a", 2)
        clock.advance_by(50)
        bus.subscriptions["audit"].resume()
        clock.advance_by(1)
        page = read(metrics)
        where = {"topic": "a", "subscription": "audit"}
        buckets = [page.value("rxbus_event_age_seconds_bucket", **where, le=bound) for bound in ("1.0", "10.0", "100.0", "+Inf")]
        assert [1, 1, 2, 2] == buckets
        assert 50.0 == page.value("rxbus_event_age_seconds_sum", **where)
        assert 2 == page.value("rxbus_handler_duration_seconds_bucket", **where, le="1.0")
        bus.close(drain=False)

    def test_of_real_handlers(self) -> None:
        """A handler of 20 ms is found above 10 ms; one at a time or several, the sum is at least what they slept."""
        metrics = Metrics()
        with EventBus(instruments=[metrics]) as bus:
            bus.subscribe("a", lambda _: time.sleep(0.02), name="one")
            bus.subscribe("a", lambda _: time.sleep(0.02), name="several", concurrency=4)
            bus.publish_many("a", range(4))
            bus.drain(LIMIT)
            page = read(metrics)
        for name in ("one", "several"):
            where = {"topic": "a", "subscription": name}
            assert 0 == page.value("rxbus_handler_duration_seconds_bucket", **where, le="0.01")
            total = page.value("rxbus_handler_duration_seconds_sum", **where)
            assert total is not None
            assert total >= 0.08

    @pytest.mark.parametrize(
        ("given", "kind"),
        [("text", TypeError), (5, TypeError), ([], ValueError), ([2, 1], ValueError), ([-1, 1], ValueError), (["a"], TypeError)],
    )
    def test_bad_buckets(self, given: Any, kind: type[Exception]) -> None:
        """They must be increasing numbers of seconds."""
        with pytest.raises(kind, match="buckets must be"):
            Metrics(given)


class TestGauges:
    """What is there now."""

    def test_depth_of_a_queue(self) -> None:
        """Queued and pending differ by the event in the handler."""
        metrics = Metrics()
        with EventBus(instruments=[metrics]) as bus:
            gate = Gate()
            bus.subscribe("a", gate, name="slow", capacity=10)
            bus.publish("a", 0)
            gate.wait_until_entered()
            bus.publish_many("a", range(4))
            page = read(metrics)
            where = {"topic": "a", "subscription": "slow"}
            assert 4 == page.value("rxbus_queue_depth", **where)
            assert 5 == page.value("rxbus_events_pending", **where)
            assert 10 == page.value("rxbus_queue_capacity", **where)
            gate.open()


def test_the_parser_would_notice() -> None:
    """The check can fail: a page without its end is refused."""
    metrics = Metrics()
    with pytest.raises(ValueError, match="EOF"):
        _Page(metrics.openmetrics().replace("# EOF\n", ""))
