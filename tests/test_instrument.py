"""Instruments: when which hook is called, and that none of them can do harm."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler
from reactivex.testing import TestScheduler

from rxbus import BusClosedError, BusError, Event, EventBus, Instrument, MailboxFullError, Overflow, Reason, Retry, Topic, operators
from rxbus.instrument import HOOKS
from rxbus.observed import ObservedTopic
from tests.support import LIMIT, Gate, Recorder, Witness, assert_books_balance, join, run_in_thread


def failing(event: Event[Any]) -> None:
    """Raises."""
    raise ValueError(event.payload)


def fails_on_three(value: Any) -> Any:
    """Raises for each third number."""
    number = value.payload if isinstance(value, Event) else value
    if number % 3 == 0:
        raise ValueError(number)
    return number


@pytest.fixture
def witness() -> Witness:
    """An instrument that keeps what it is told."""
    return Witness()


class TestOrder:
    """What is told, and in which order."""

    @pytest.mark.parametrize("scheduler", [None, ImmediateScheduler()], ids=["pool", "immediate"])
    def test_of_a_handled_event(self, witness: Witness, scheduler: Any) -> None:
        """Published, offered, handling, handled."""
        with EventBus(instruments=[witness], scheduler=scheduler) as bus:
            subscription = bus.subscribe("a", Recorder(), name="audit")
            event = bus.publish("a", 1)
            bus.drain(LIMIT)
            assert ["published", "offered", "handling", "handled"] == witness.names
            assert [("published", event)] == witness.of("published")
            assert [("offered", event, subscription)] == witness.of("offered")
            assert [("handling", event, subscription, 1)] == witness.of("handling")
            ((_, handled, by, seconds),) = witness.of("handled")
            assert (event, subscription) == (handled, by)
            assert 0 <= seconds < LIMIT

    def test_of_a_failing_event(self, witness: Witness) -> None:
        """Each attempt fails, then there is another one, or a letter."""
        with EventBus(instruments=[witness]) as bus:
            subscription = bus.subscribe("a", failing, retry=Retry(2, backoff=0.001, jitter=0.0))
            event = bus.publish("a", 1)
            bus.drain(LIMIT)
            assert ["published", "offered", "handling", "failed", "retried", "handling", "failed", "dead_lettered"] == witness.names
            assert [1, 2] == [attempt for *_, attempt in witness.of("handling")]
            assert [(event, subscription, 1), (event, subscription, 2)] == [(e, s, n) for _, e, s, _, n in witness.of("failed")]
            assert all(isinstance(error, ValueError) for _, _, _, error, _ in witness.of("failed"))
            assert [("retried", event, subscription, 0.001)] == witness.of("retried")
            (letter,) = bus.dead_letters
            assert [("dead_lettered", letter)] == witness.of("dead_lettered")

    def test_of_the_life_of_a_bus(self, witness: Witness) -> None:
        """Attached, subscribed, disposed, closed."""
        bus = EventBus(instruments=[witness])
        subscription = bus.subscribe("a", Recorder())
        bus.observe("b").subscribe(print)
        observer = bus.subscriptions["observer@b"]
        report = bus.close()
        assert [("attached", bus), ("subscribed", subscription), ("subscribed", observer)] == witness.calls[:3]
        assert {("disposed", subscription), ("disposed", observer)} == set(witness.calls[3:5])
        assert [("closed", report)] == witness.calls[5:]

    def test_under_virtual_time(self, witness: Witness) -> None:
        """The pauses of a retry are told in virtual seconds, and the order is the same each time."""
        clock = TestScheduler()
        bus = EventBus(instruments=[witness], scheduler=clock)
        bus.subscribe("a", failing, retry=Retry(3, backoff=60.0, factor=2.0, max_backoff=1000.0, jitter=0.0))
        bus.publish("a", 1)
        clock.advance_by(1000)
        assert [60.0, 120.0] == [delay for *_, delay in witness.of("retried")]
        assert ["handling", "failed", "retried"] * 2 + ["handling", "failed", "dead_lettered"] == witness.names[2:]
        bus.close(drain=False)

    def test_deliver_comes_back_after_the_hooks(self) -> None:
        """When the receipt is there, the outcome was told, however long that took."""

        class Slow(Witness):
            def handled(self, event: Event[Any], subscription: Any, seconds: float) -> None:
                time.sleep(0.005)
                self.calls.append(("handled", event, subscription, seconds))

        witness = Slow()
        with EventBus(instruments=[witness]) as bus:
            bus.subscribe("a", Recorder())
            bus.subscribe("a", Recorder(), concurrency=2)
            for number in range(5):
                bus.deliver("a", number)
                assert 2 * (number + 1) == len(witness.of("handled"))

    def test_a_disposed_subscription_says_so_when_its_last_event_has_ended(self, witness: Witness) -> None:
        """Not while the handler runs."""
        with EventBus(instruments=[witness]) as bus:
            gate = Gate()
            subscription = bus.subscribe("a", gate)
            bus.publish("a", 1)
            gate.wait_until_entered()
            subscription.dispose()
            assert [] == witness.of("disposed")
            gate.open()
            subscription.dispose(wait=LIMIT)
            bus.drain(LIMIT)
            assert ["handled", "disposed"] == [call[0] for call in witness.of("handled", "disposed")]


class TestRefused:
    """What never came to a handler."""

    def test_no_room(self, witness: Witness) -> None:
        """A refusal is a failure of attempt 0, and a letter."""
        with EventBus(instruments=[witness], capacity=1, overflow=Overflow.FAIL) as bus:
            gate = Gate()
            bus.subscribe("a", gate)
            bus.publish("a", 0)
            gate.wait_until_entered()
            bus.publish_many("a", [1, 2])
            ((_, event, _, error, attempt),) = witness.of("failed")
            assert (2, 0) == (event.payload, attempt)
            assert isinstance(error, MailboxFullError)
            ((_, letter),) = witness.of("dead_lettered")
            assert Reason.OVERFLOW is letter.reason
            gate.open()

    @pytest.mark.parametrize(("policy", "gone"), [(Overflow.DROP_OLDEST, 1), (Overflow.DROP_LATEST, 2)])
    def test_dropped_by_policy(self, witness: Witness, policy: Overflow, gone: int) -> None:
        """The reason is overflow."""
        with EventBus(instruments=[witness], capacity=1, overflow=policy) as bus:
            gate = Gate()
            subscription = bus.subscribe("a", gate)
            bus.publish("a", 0)
            gate.wait_until_entered()
            bus.publish("a", 1)
            bus.publish("a", 2)
            ((_, event, by, reason),) = witness.of("dropped")
            assert (gone, subscription, "overflow") == (event.payload, by, reason)
            gate.open()

    def test_dropped_by_the_end(self, witness: Witness) -> None:
        """What `dispose` releases is told, the one that waits for another attempt included."""
        with EventBus(instruments=[witness]) as bus:
            subscription = bus.subscribe("a", failing, retry=Retry(2, backoff=60.0))
            bus.publish_many("a", range(3))
            while not witness.of("retried"):
                threading.Event().wait(0.001)
            subscription.dispose()
            assert "disposed" == witness.calls[-1][0]
            assert [0, 1, 2] == [event.payload for _, event, _, _ in witness.of("dropped")]
            assert {"disposed"} == {reason for *_, reason in witness.of("dropped")}

    def test_hops(self, witness: Witness) -> None:
        """A story that is too long is published, offered, and refused."""
        with EventBus(instruments=[witness], max_hops=2) as bus:
            bus.subscribe("a", lambda event: event.payload + 1, to="a")
            bus.publish("a", 0)
            bus.drain(LIMIT)
            assert 4 == len(witness.of("published"))
            assert 4 == len(witness.of("offered"))
            assert [0] == [attempt for *_, attempt in witness.of("failed")]
            assert [Reason.HOPS] == [letter.reason for _, letter in witness.of("dead_lettered")]

    def test_a_closed_bus_tells_nobody(self, witness: Witness) -> None:
        """What is refused to the publisher was neither going out nor published."""
        bus = EventBus(instruments=[witness])
        topic = bus.topic("a")
        bus.close()
        before = list(witness.calls)
        with pytest.raises(BusClosedError):
            bus.publish("a", 1)
        with pytest.raises(BusClosedError):
            topic.emit(1)
        with pytest.raises(BusClosedError):
            bus.publish_many("a", [1, 2])
        assert before == witness.calls


SHAPES: dict[str, Any] = {
    "plain": lambda bus: bus.subscribe("a", fails_on_three),
    "pattern": lambda bus: bus.subscribe(">", fails_on_three),
    "retried": lambda bus: bus.subscribe("a", fails_on_three, retry=Retry(3, backoff=0.0005)),
    "operator": lambda bus: bus.subscribe("a", Recorder(), through=ops.map(fails_on_three)),
    "operator retried": lambda bus: bus.subscribe("a", Recorder(), through=ops.map(fails_on_three), retry=Retry(2, backoff=0.0005)),
    "several values": lambda bus: bus.subscribe(
        "a", fails_on_three, through=ops.flat_map(lambda e: [e.payload, e.payload + 1, e.payload + 2]), retry=Retry(2, backoff=0.0005)
    ),
    "attempt": lambda bus: bus.subscribe("a", print, through=operators.attempt(lambda e: str(fails_on_three(e))[:0])),
    "attempt retried": lambda bus: bus.subscribe(
        "a", lambda _: None, through=operators.attempt(fails_on_three, retry=Retry(2, backoff=0.0005))
    ),
    "concurrent": lambda bus: bus.subscribe("a", fails_on_three, concurrency=3, retry=Retry(2, backoff=0.0005)),
    "concurrent values": lambda bus: bus.subscribe(
        "a", fails_on_three, through=ops.flat_map(lambda e: [e.payload, e.payload + 1]), concurrency=3
    ),
    "keyed": lambda bus: bus.subscribe("a", fails_on_three, concurrency=3, key=lambda e: e.payload % 2),
    "bad key": lambda bus: bus.subscribe("a", Recorder(), concurrency=3, key=fails_on_three),
    "group": lambda bus: [bus.subscribe("a", fails_on_three, group="g") for _ in range(3)],
    "group on a pattern": lambda bus: [bus.subscribe(">", fails_on_three, group="g") for _ in range(3)],
    "raw chain": lambda bus: bus.observe("a").subscribe(fails_on_three),
    "mailbox in a chain": lambda bus: bus.observe("a").pipe(operators.mailbox()).subscribe(fails_on_three),
    "mailbox of values": lambda bus: bus.observe("a").pipe(operators.payload(), operators.mailbox()).subscribe(fails_on_three),
    "late": lambda bus: bus.subscribe("a", Recorder(), through=ops.delay(0.001), concurrency=2),
    "group that drops": lambda bus: [
        bus.subscribe("a", fails_on_three, group="g", capacity=2, overflow=Overflow.DROP_OLDEST) for _ in range(2)
    ],
    "drops": lambda bus: bus.subscribe("a", fails_on_three, capacity=3, overflow=Overflow.DROP_OLDEST),
    "drops the latest": lambda bus: bus.subscribe("a", fails_on_three, capacity=3, overflow=Overflow.DROP_LATEST, concurrency=2),
    "refuses": lambda bus: bus.subscribe("a", fails_on_three, capacity=3, overflow=Overflow.FAIL),
}


class TestBooks:
    """What instruments are told adds up to what the statistics say."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_hooks_and_statistics_agree(self, witness: Witness, shape: str) -> None:
        """Offered, handled, failed, retried, dropped: each call is one count, for every kind of subscription."""
        with EventBus(instruments=[witness]) as bus:
            SHAPES[shape](bus)
            bus.publish_many("a", range(20))
            for number in range(20, 30):
                bus.publish("a", number)
            bus.deliver("a", 30)
            bus.drain(LIMIT)
            statistics = assert_books_balance(bus)
            told = Counter((call[0], call[2].name) for call in witness.of("offered", "handled", "failed", "retried", "dropped"))
            letters = Counter(letter.subscription for _, letter in witness.of("dead_lettered"))
            assert 31 == len(witness.of("published")) == statistics.topics["a"].published
            boxed = "mailbox" in shape
            if "group" in shape:  # an event is nobody's until a member takes it
                assert 31 == sum(count for (hook, _), count in told.items() if hook == "offered")
            for name, one in statistics.subscriptions.items():
                if "group" not in shape:
                    assert one.offered == told["offered", name]
                assert not boxed or {"observer@a", "observer@a/mailbox"} == set(statistics.subscriptions)
                assert one.handled == told["handled", name]
                assert one.failed == told["failed", name] - told["retried", name] == letters[name]
                assert one.retried == told["retried", name]
                assert one.dropped == told["dropped", name]

    def test_what_a_group_drops_is_told_of_whom_it_was_counted_for(self) -> None:
        """Though another answers for the queue by the time that it is told."""

        class Pausing(Witness):
            def published(self, event: Event[Any]) -> None:
                if event.payload == 4:
                    first.pause()

        witness = Pausing()
        with EventBus(instruments=[witness]) as bus:
            gate = Gate()
            options: Any = {"group": "g", "capacity": 1, "overflow": Overflow.DROP_OLDEST}
            first = bus.subscribe("a", gate, name="first", **options)
            bus.subscribe("a", gate, name="second", **options)
            for number in range(5):
                bus.publish("a", number)
                if number < 2:
                    while bus.subscriptions["first"].statistics().queued:
                        threading.Event().wait(0.001)
            dropped = {name: one.dropped for name, one in bus.statistics().subscriptions.items()}
            told = Counter(subscription.name for _, _, subscription, _ in witness.of("dropped"))
            assert {"first": told["first"], "second": told["second"]} == dropped
            assert 2 == sum(dropped.values())
            first.resume()
            gate.open()

    def test_waiting_for_a_turn_is_no_attempt(self, witness: Witness) -> None:
        """An event that stands behind another one's pauses in `attempt` is tried once."""
        failures = [ValueError("once")]

        def once(event: Event[Any]) -> Any:
            if event.topic == "a" and failures:
                raise failures.pop()
            return event.payload

        with EventBus(instruments=[witness]) as bus:
            merged = reactivex.merge(bus.observe("a"), bus.observe("b"))
            merged.pipe(operators.attempt(once, retry=Retry(2, backoff=0.05))).subscribe(lambda _: None)
            bus.publish("a", 1)
            while not witness.of("retried"):
                threading.Event().wait(0.001)
            bus.publish("b", 2)
            bus.drain(LIMIT)
        assert Counter({"a": 2, "b": 1}) == Counter(event.topic for _, event, _, _ in witness.of("handling"))
        assert 1 == len(witness.of("retried"))

    def test_replay_is_offered_but_not_published(self, witness: Witness) -> None:
        """The topic carries it no second time."""
        with EventBus(instruments=[witness]) as bus:
            bus.subscribe("a", failing)
            bus.publish("a", 1)
            bus.drain(LIMIT)
            bus.dead_letters.replay()
            bus.drain(LIMIT)
            assert 1 == len(witness.of("published"))
            assert 2 == len(witness.of("offered"))


class Broken(Instrument):
    """Raises in every hook."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0


def _raising(self: Any, *_: Any) -> Any:
    self.calls += 1
    raise self.error


for _hook in HOOKS:
    setattr(Broken, _hook, _raising)


class TestHarmless:
    """An instrument that raises harms nothing."""

    @pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1), GeneratorExit()], ids=repr)
    def test_one_that_raises(self, witness: Witness, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged once, all is handled, and the other instrument hears everything."""
        seen = Recorder()
        broken = Broken(error)
        with caplog.at_level(logging.ERROR, "rxbus"), EventBus(instruments=[broken, witness]) as bus:
            bus.subscribe("a", seen)
            bus.subscribe("a", failing, name="failing")
            for number in range(10):
                bus.publish("a", number)
            bus.drain(LIMIT)
            assert list(range(10)) == seen.payloads
            assert 10 == len(bus.dead_letters)
            assert_books_balance(bus)
        assert broken.calls > 50
        assert 10 == len(witness.of("published"))
        assert 10 == len(witness.of("handled"))
        (line,) = [record for record in caplog.records if "instrument" in record.getMessage()]
        assert "instrument Broken failed in attached() and is passed over; more of its errors are not logged" == line.getMessage()

    def test_an_interrupt_in_a_publisher_is_the_programs_own(self) -> None:
        """Ctrl-C while an instrument is told of a publish comes out; the event is handled all the same."""

        class Interrupted(Instrument):
            def published(self, event: Event[Any]) -> None:
                raise KeyboardInterrupt

        seen = Recorder()
        with EventBus(instruments=[Interrupted()]) as bus:
            bus.subscribe("a", seen)
            with pytest.raises(KeyboardInterrupt):
                bus.publish("a", 1)
            bus.drain(LIMIT)
            assert [1] == seen.payloads

    def test_no_hook_runs_under_a_lock(self) -> None:
        """While one is at work, another thread may publish, subscribe, dispose, ask and forget."""
        done: list[str] = []

        class Busy(Instrument):
            def _use(self, hook: str) -> None:
                if not done or done[-1] != hook:
                    done.append(hook)
                    join(run_in_thread(self._all))

            def _all(self) -> None:
                if len(done) > 40:
                    return
                assert bus is not None
                bus.publish("other", 1)
                bus.subscribe("other", lambda _: None).dispose()
                bus.statistics()
                bus.forget("other")

            def published(self, event: Event[Any]) -> None:
                if event.topic == "a":
                    self._use("published")

            def offered(self, event: Event[Any], subscription: Any) -> None:
                self._use("offered")

            def handled(self, event: Event[Any], subscription: Any, seconds: float) -> None:
                self._use("handled")

            def dropped(self, event: Event[Any], subscription: Any, reason: str) -> None:
                self._use("dropped")

            def dead_lettered(self, letter: Any) -> None:
                self._use("dead_lettered")

        bus: EventBus | None = None
        bus = EventBus(instruments=[Busy()], capacity=1, overflow=Overflow.DROP_OLDEST)
        bus.subscribe("a", fails_on_three)
        bus.subscribe("a", fails_on_three, capacity=1, overflow=Overflow.FAIL)
        for number in range(20):
            bus.publish("a", number)
        bus.drain(LIMIT)
        assert {"published", "offered", "handled", "dead_lettered"} <= set(done)
        bus.close()

    @pytest.mark.parametrize("hook", ["published", "offered", "handling", "handled", "dropped", "dead_lettered", "disposed", "closed"])
    def test_a_hook_may_close_and_must_not_drain(self, hook: str) -> None:
        """Wherever it is called: `close` comes back at once and finishes elsewhere, `drain` raises."""
        took: list[float] = []
        errors: list[str] = []

        def act(*_: Any) -> None:
            began = time.monotonic()
            try:
                bus.drain(LIMIT)
            except BusError as error:
                errors.append(str(error))
            bus.close(LIMIT)
            took.append(time.monotonic() - began)

        witness = type("Closing", (Witness,), {hook: lambda self, *arguments: act(*arguments)})()
        bus = EventBus(instruments=[witness], capacity=2, overflow=Overflow.DROP_OLDEST)
        bus.subscribe("a", fails_on_three)
        try:
            for number in range(30):
                bus.publish("a", number)
        except BusClosedError:
            pass
        bus.close(LIMIT)
        assert took
        assert max(took) < LIMIT / 2
        assert {"drain of bus 'rxbus' from one of its handlers or instruments would wait for itself"} == set(errors)

    def test_an_interrupt_while_deliver_tells_of_it(self) -> None:
        """From a handler: nobody is left waiting for ever in the eyes of others."""

        class Once(Instrument):
            armed = True

            def published(self, event: Event[Any]) -> None:
                if event.topic == "b" and self.armed:
                    self.armed = False
                    raise KeyboardInterrupt

        with EventBus(instruments=[Once()]) as bus:
            asking = bus.subscribe("a", lambda event: bus.deliver("b", event.payload))
            bus.subscribe("b", lambda _: None)
            bus.publish_many("a", [1, 2])
            bus.drain(LIMIT)
            assert () == asking._strand.waiting_for
            assert (1, 1) == (asking.statistics().failed, asking.statistics().handled)

    def test_an_instrument_may_use_the_bus(self) -> None:
        """A hook that publishes, subscribes and closes doesn't deadlock."""

        class Meddling(Instrument):
            def handled(self, event: Event[Any], subscription: Any, seconds: float) -> None:
                if event.topic == "a":
                    bus.publish("seen", event.payload)
                    subscription.dispose()
                    bus.close()

        seen = Recorder()
        bus = EventBus(instruments=[Meddling()])
        bus.subscribe("seen", seen)
        bus.subscribe("a", lambda _: None)
        bus.publish("a", 1)
        for _ in range(1000):
            if "closed" in repr(bus):
                break
            threading.Event().wait(0.005)
        assert [1] == seen.payloads
        bus.close()


word: ContextVar[str] = ContextVar("word", default="nothing")


class TestContext:
    """Hooks and the context of a handler."""

    @pytest.mark.parametrize(
        "options", [{}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["plain", "concurrent", "pipeline"]
    )
    def test_what_handling_sets_the_handler_sees(self, options: dict[str, Any]) -> None:
        """And no other event does."""

        class Setting(Instrument):
            def handling(self, event: Event[Any], subscription: Any, attempt: int) -> None:
                if event.payload == 0:
                    word.set(f"{event.payload}/{attempt}")

        seen: list[str] = []
        with EventBus(instruments=[Setting()]) as bus:
            bus.subscribe("a", lambda _: seen.append(word.get()), **options)
            for number in range(3):
                bus.deliver("a", number)
        assert ["0/1", "nothing", "nothing"] == seen

    def test_each_attempt_of_several_at_a_time_is_told(self, witness: Witness) -> None:
        """Of a concurrent handler too."""
        with EventBus(instruments=[witness]) as bus:
            bus.subscribe("a", failing, concurrency=2, retry=Retry(3, backoff=0.0005))
            bus.publish("a", 1)
            bus.drain(LIMIT)
            assert [1, 2, 3] == [attempt for *_, attempt in witness.of("handling")]
            assert [1, 2, 3] == [attempt for *_, attempt in witness.of("failed")]


class Stamping(Instrument):
    """Adds to the metadata of what goes out."""

    def __init__(self, added: Any) -> None:
        self.added = added

    def publishing(self, event: Event[Any]) -> Any:
        """What it was told to."""
        return self.added


class TestPublishing:
    """What instruments add to the metadata."""

    def test_goes_out_with_the_event(self) -> None:
        """The publisher's event has it, and so has the subscriber's; both are the same."""
        seen = Recorder()
        with EventBus(instruments=[Stamping({"trace": "1"}), Stamping({"more": 2})]) as bus:
            bus.subscribe(">", seen)
            event = bus.publish("a", 1, metadata={"user": "ada"})
            many = bus.publish_many("b", [1, 2])
            bus.deliver("c", 3)
            bus.drain(LIMIT)
        assert {"user": "ada", "trace": "1", "more": 2} == dict(event.metadata)
        assert [event, *many] == seen.events[:3]
        assert all(one.metadata["trace"] == "1" for one in seen.events)

    def test_a_complete_event_keeps_its_identity(self) -> None:
        """It is another object, because events are frozen, and equal to the one that was given."""
        with EventBus(instruments=[Stamping({"trace": "1"})]) as bus:
            given = Event("a", 1, {"user": "ada"})
            published = bus.publish(given)
        assert given == published
        assert given.time == published.time
        assert {"user": "ada"} == dict(given.metadata)
        assert {"user": "ada", "trace": "1"} == dict(published.metadata)

    def test_nothing_to_add(self) -> None:
        """Then a complete event goes out as it is."""
        with EventBus(instruments=[Stamping(None), Stamping({})]) as bus:
            given = Event("a", 1)
            assert given is bus.publish(given)

    @pytest.mark.parametrize("added", ["text", 5, {1: 2}], ids=repr)
    def test_no_metadata(self, added: object, caplog: pytest.LogCaptureFixture) -> None:
        """What is no mapping with str keys is logged, and the event goes out without it."""
        with caplog.at_level(logging.ERROR, "rxbus"), EventBus(instruments=[Stamping(added)]) as bus:
            assert {} == dict(bus.publish("a", 1).metadata)
        assert 1 == len(caplog.records)

    def test_types_are_checked_first(self, witness: Witness) -> None:
        """A payload that the topic refuses isn't told, nor are those before it in a batch."""
        with EventBus(instruments=[witness]) as bus:
            bus.topic("a", int)
            with pytest.raises(TypeError):
                bus.publish_many("a", [1, 2, "no number"])
            with pytest.raises(TypeError):
                bus.publish("a", "no number")
            assert [] == witness.of("publishing", "published")


class TestShape:
    """What is no instrument is refused where it is given."""

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (Witness(), "instruments must be an iterable of Instruments"),
            (5, "instruments must be an iterable of Instruments"),
            ("text", "instruments must be an iterable of Instruments"),
            ([Witness], "not classes of them"),
            ([5], "which has no attached"),
            ([Witness(), None], "which has no attached"),
        ],
        ids=["one alone", "a number", "a text", "a class", "no instrument", "nothing"],
    )
    def test_no_instruments(self, given: Any, message: str) -> None:
        """The message says what was expected and what was found."""
        with pytest.raises(TypeError, match=message):
            EventBus(instruments=given)

    def test_a_hook_of_another_shape(self) -> None:
        """Too few arguments, or a coroutine function."""

        class Short(Instrument):
            def handled(self, event: Any) -> None:  # type: ignore[override]
                pass

        class Awaited(Instrument):
            async def handled(self, event: Any, subscription: Any, seconds: float) -> None:  # type: ignore[override]
                pass

        with pytest.raises(TypeError, match=r"must take handled\(event, subscription, seconds\)"):
            EventBus(instruments=[Short()])
        with pytest.raises(TypeError, match=r"handled\(\) of .* must be a plain function"):
            EventBus(instruments=[Awaited()])

    def test_any_object_with_the_hooks_will_do(self) -> None:
        """It need not be derived from `Instrument`."""

        class Duck:
            def __init__(self) -> None:
                self.count = 0

            def __getattr__(self, name: str) -> Any:
                if name in HOOKS:
                    return self._note
                raise AttributeError(name)

            def _note(self, *_: Any) -> None:
                self.count += 1

        duck: Any = Duck()
        with EventBus(instruments=(one for one in [duck])) as bus:
            bus.publish("a", 1)
        assert duck.count >= 4

    def test_none_at_all(self) -> None:
        """Then topics are plain ones, and nobody is asked for a panel."""
        with EventBus(instruments=[]) as bus:
            assert Topic is type(bus.topic("a"))
        with EventBus(instruments=[Instrument()]) as bus:
            assert ObservedTopic is type(bus.topic("a"))
