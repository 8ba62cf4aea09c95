"""The dead letters."""

from __future__ import annotations

from typing import Any

import pytest

from rxbus import DeadLetter, Event, EventBus, Reason
from tests.support import LIMIT, Recorder, assert_books_balance, join, run_in_thread


def failing(event: Event[int]) -> None:
    """Raises."""
    raise ValueError(event.payload)


class TestCollection:
    """What a bus holds."""

    def test_in_the_order_of_their_coming(self, bus: EventBus) -> None:
        """Length and iteration."""
        bus.subscribe("a", failing)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert 3 == len(bus.dead_letters)
        assert [0, 1, 2] == [letter.event.payload for letter in bus.dead_letters]
        assert "DeadLetters(3 held, 0 evicted)" == repr(bus.dead_letters)

    def test_iteration_is_of_that_moment(self, bus: EventBus) -> None:
        """Letters may come and go meanwhile."""
        bus.subscribe("a", failing)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        seen = []
        for letter in bus.dead_letters:
            bus.dead_letters.discard()
            seen.append(letter.event.payload)
        assert [0, 1, 2] == seen

    @pytest.mark.parametrize("bad", ["x", None, 5])
    def test_what_is_no_letter(self, bus: EventBus, bad: Any) -> None:
        """Is refused."""
        with pytest.raises(TypeError, match=f"discard takes dead letters, got {bad!r}"):
            bus.dead_letters.discard(bad)

    def test_discard(self, bus: EventBus) -> None:
        """Some, or all; those that aren't held don't count."""
        bus.subscribe("a", failing)
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        first, second, *_ = bus.dead_letters
        assert 2 == bus.dead_letters.discard(first, second)
        assert 0 == bus.dead_letters.discard(first)
        assert [2, 3] == [letter.event.payload for letter in bus.dead_letters]
        assert 2 == bus.dead_letters.discard()
        assert 0 == len(bus.dead_letters)


class Mended:
    """A handler that fails until it is told not to."""

    def __init__(self) -> None:
        self.broken = True
        self.seen: list[Event[int]] = []

    def __call__(self, event: Event[int]) -> None:
        if self.broken:
            raise ValueError(event.payload)
        self.seen.append(event)


class TestReplay:
    """Another chance for what had failed."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"group": "g"}], ids=str)
    @pytest.mark.parametrize("pattern", ["a", "*"])
    def test_reaches_the_failed_subscription_alone(self, bus: EventBus, pattern: str, options: dict[str, Any]) -> None:
        """The same event, marked; nobody else sees it again, and the books are right."""
        mended, other = Mended(), Recorder()
        bus.subscribe(pattern, mended, name="mended", **options)
        bus.subscribe(pattern, other, name="other")
        events = bus.publish_many("a", range(3), metadata={"user": "ada"})
        bus.drain(LIMIT)
        mended.broken = False
        assert 3 == bus.dead_letters.replay()
        bus.drain(LIMIT)
        assert events == sorted(mended.seen, key=lambda e: e.payload)
        assert [{"user": "ada", "$replayed": 1}] * 3 == [dict(e.metadata) for e in mended.seen]
        assert (0, 3) == (len(bus.dead_letters), len(other.events))
        counted = assert_books_balance(bus)
        one = counted.subscriptions["mended"]
        assert (6, 3, 3) == (one.offered, one.handled, one.failed)

    def test_a_second_failure_makes_another_letter(self, bus: EventBus) -> None:
        """Which may be replayed again, and says so."""
        mended = Mended()
        bus.subscribe("a", mended)
        bus.publish("a", 1)
        for n in range(3):
            bus.drain(LIMIT)
            (letter,) = bus.dead_letters
            assert n == letter.event.metadata.get("$replayed", 0)
            assert 1 == bus.dead_letters.replay(letter)
            assert 0 == bus.dead_letters.replay(letter)

    def test_some_of_them(self, bus: EventBus) -> None:
        """The others stay, in their order."""
        mended = Mended()
        bus.subscribe("a", mended)
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        mended.broken = False
        letters = list(bus.dead_letters)
        assert 2 == bus.dead_letters.replay(letters[1], letters[3], letters[1])
        bus.drain(LIMIT)
        assert ([0, 2], [1, 3]) == ([x.event.payload for x in bus.dead_letters], [e.payload for e in mended.seen])

    def test_whose_subscription_is_gone_stays(self, bus: EventBus) -> None:
        """Nothing is lost, and it isn't counted; another one of that name gets it."""
        gone = bus.subscribe("a", failing, name="one")
        bus.subscribe("b", failing, name="two")
        bus.publish("a", 1)
        bus.publish("b", 2)
        bus.drain(LIMIT)
        gone.dispose(wait=LIMIT)
        bus.forget("b")
        bus.drain(LIMIT)
        assert 0 == bus.dead_letters.replay()
        assert [1, 2] == [x.event.payload for x in bus.dead_letters]
        seen = Recorder()
        bus.subscribe("a", seen, name="one")
        assert 1 == bus.dead_letters.replay()
        bus.drain(LIMIT)
        assert ([1], [2]) == (seen.payloads, [x.event.payload for x in bus.dead_letters])

    def test_by_two_at_once(self, bus: EventBus) -> None:
        """Each letter goes out once."""
        mended = Mended()
        bus.subscribe("a", mended)
        bus.publish_many("a", range(200))
        bus.drain(LIMIT)
        mended.broken = False
        sent: list[int] = []
        join(*[run_in_thread(lambda: sent.append(bus.dead_letters.replay())) for _ in range(4)])
        bus.drain(LIMIT)
        assert (200, list(range(200))) == (sum(sent), sorted(e.payload for e in mended.seen))
        assert 0 == len(bus.dead_letters)

    def test_what_is_no_letter(self, bus: EventBus) -> None:
        """Is said at the call."""
        with pytest.raises(TypeError, match="replay takes dead letters, got 5"):
            bus.dead_letters.replay(5)  # type: ignore[arg-type]


class TestHops:
    """`max_hops`."""

    def test_agents_that_feed_each_other_end(self) -> None:
        """What goes further is a dead letter of who should have got it, and says how far it came."""
        with EventBus(max_hops=10) as bus:
            bus.subscribe("a", lambda e: e.payload + 1, to="b", name="A")
            bus.subscribe("b", lambda e: e.payload + 1, to="a", name="B")
            bus.publish("a", 0)
            bus.drain(LIMIT)
            (letter,) = bus.dead_letters
            assert (Reason.HOPS, "B", 11, 0) == (letter.reason, letter.subscription, letter.event.hops, letter.attempts)
            assert "expected a story of at most 10 hops, found 11" in str(letter.error)
            assert 11 == sum(s.handled for s in assert_books_balance(bus).subscriptions.values())

    @pytest.mark.parametrize("how", ["publish_many", "deliver"])
    def test_however_it_is_published(self, how: str) -> None:
        """The publishing handler is not troubled, and a receipt counts it as failed."""
        found: list[int] = []
        with EventBus(max_hops=1) as bus:

            def handler(event: Event[int]) -> None:
                if how == "deliver":
                    found.append(bus.deliver(f"t{event.hops + 1}", 1, timeout=LIMIT).failed)
                else:
                    bus.publish_many(f"t{event.hops + 1}", [1])

            for n in range(3):
                bus.subscribe(f"t{n}", handler, name=f"s{n}")
            bus.publish("t0", 0)
            bus.drain(LIMIT)
            assert [("s2", Reason.HOPS)] == [(x.subscription, x.reason) for x in bus.dead_letters]
            assert ([1, 0] if how == "deliver" else []) == found
            assert_books_balance(bus)

    def test_a_long_story_is_logged_once(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """Without a bound, at a thousand hops, and each story for itself."""

        def forward(event: Event[int]) -> int | None:
            return event.payload if event.hops < 1500 else None

        bus.subscribe("a", forward, to="a")
        story = bus.publish("a", 0)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert 1 == caplog.text.count(f"story {story.id} has come to 1000 hops on topic 'a'")
        assert 2 == caplog.text.count("has come to 1000 hops")
        assert 0 == len(bus.dead_letters)

    @pytest.mark.parametrize("bad", [0, -1, 1.5, "3", True])
    def test_bad_bounds(self, bad: Any) -> None:
        """At least one hop."""
        with pytest.raises((TypeError, ValueError), match="max_hops must be"):
            EventBus(max_hops=bad)


class TestObservable:
    """Letters to come."""

    def test_late_subscribers_get_no_history(self, bus: EventBus) -> None:
        """Like any topic."""
        got: list[DeadLetter] = []
        bus.subscribe("a", failing)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        bus.dead_letters.subscribe(got.append)
        bus.publish("a", 2)
        bus.drain(LIMIT)
        assert [2] == [letter.event.payload for letter in got]

    def test_failing_subscriber_makes_no_loop(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged and makes no letter."""

        def bad(letter: DeadLetter) -> None:
            raise RuntimeError("bad observer")

        bus.dead_letters.subscribe(bad)
        bus.subscribe("a", failing)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert 3 == len(bus.dead_letters)
        assert 3 == caplog.text.count("RuntimeError: bad observer")

    def test_one_error_line_each(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """Subscription, event, topic and error on one line."""
        bus.subscribe("a", failing)
        event = bus.publish("a", 7)
        bus.drain(LIMIT)
        assert [f"subscription 'failing' gave up event {event.id} of topic 'a' (failed, attempts: 1): ValueError: 7"] == [
            record.getMessage() for record in caplog.records if record.levelname == "ERROR"
        ]

    def test_completes_with_the_bus(self, bus: EventBus) -> None:
        """After the last letter."""
        got: list[object] = []
        bus.subscribe("a", failing)
        bus.dead_letters.subscribe(lambda letter: got.append(letter.event.payload), on_completed=lambda: got.append("completed"))
        bus.publish("a", 1)
        bus.close()
        assert [1, "completed"] == got
