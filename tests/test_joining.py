"""`dedupe` and `join_by`, in virtual time and on real threads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

from rxbus import Event, EventBus, joining, operators
from tests.support import LIMIT, Recorder, join, run_in_thread

on_next, on_completed, on_error = ReactiveTest.on_next, ReactiveTest.on_completed, ReactiveTest.on_error


def letter(item: str) -> str:
    """Of "a1" the a."""
    return item[0]


class TestDedupe:
    """Leaving out what was there before."""

    def test_by_key(self) -> None:
        """As its diagram shows it."""
        clock = TestScheduler()
        source = clock.create_hot_observable(
            on_next(210, 1), on_next(220, 2), on_next(230, 1), on_next(240, 2), on_next(250, 3), on_completed(260)
        )
        found = clock.start(lambda: source.pipe(operators.dedupe(lambda n: n)))
        assert [on_next(210, 1), on_next(220, 2), on_next(250, 3), on_completed(260)] == found.messages

    def test_within_a_window(self) -> None:
        """A key is forgotten after so many seconds, counted from when it was let through."""
        clock = TestScheduler()
        source = clock.create_hot_observable(*(on_next(at, "x") for at in (210, 230, 249, 250, 251)))
        found = clock.start(lambda: source.pipe(operators.dedupe(lambda n: n, window=40.0)))
        assert [on_next(210, "x"), on_next(250, "x")] == found.messages

    def test_events_by_id(self) -> None:
        """Unless told; a replayed event is the same."""
        first, second = Event("a", 1), Event("a", 1)
        seen: list[Any] = []
        reactivex.of(first, second, first).pipe(operators.dedupe()).subscribe(seen.append)
        assert [first, second] == seen

    def test_it_forgets_the_oldest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of too many keys."""
        monkeypatch.setattr(joining, "KEYS_KEPT", 2)
        seen: list[int] = []
        reactivex.of(1, 2, 3, 2, 3, 1).pipe(operators.dedupe(lambda n: n)).subscribe(seen.append)
        assert [1, 2, 3, 1] == seen

    def test_errors(self) -> None:
        """Of the source, of the key, and items that are no events, end it as they end `map`."""
        error = ValueError("source")
        cases: list[tuple[Any, Any, type[Exception]]] = [
            (reactivex.throw(error), operators.dedupe(lambda n: n), ValueError),
            (reactivex.of(0), operators.dedupe(lambda n: 1 // n), ZeroDivisionError),
            (reactivex.of([1]), operators.dedupe(lambda n: n), TypeError),
            (reactivex.of(1), operators.dedupe(), TypeError),
        ]
        for source, operator, kind in cases:
            errors: list[Exception] = []
            source.pipe(operator).subscribe(on_error=errors.append)
            assert [kind] == [type(found) for found in errors]

    def test_supervised(self, bus: EventBus) -> None:
        """Between mailbox and handler it drops events, which count as handled."""
        seen = Recorder()
        bus.subscribe("a", seen, through=operators.dedupe(lambda event: event.payload))
        bus.publish_many("a", [1, 2, 1, 3, 2])
        bus.drain(LIMIT)
        assert [1, 2, 3] == seen.payloads
        assert 5 == bus.statistics().topics["a"].handled

    @pytest.mark.parametrize(("options", "kind"), [({"key": 5}, TypeError), ({"window": -1}, ValueError), ({"window": "x"}, TypeError)])
    def test_bad_input(self, options: Any, kind: type[Exception]) -> None:
        """At the call."""
        with pytest.raises(kind, match=next(iter(options))):
            operators.dedupe(**options)


class TestJoin:
    """Bringing together what belongs together."""

    def test_by_key(self) -> None:
        """As its diagram shows it."""
        clock = TestScheduler()
        one = clock.create_hot_observable(on_next(210, "a1"), on_next(230, "b1"), on_completed(260))
        two = clock.create_hot_observable(on_next(220, "b2"), on_next(250, "a2"), on_completed(270))
        found = clock.start(lambda: one.pipe(operators.join_by(two, key=letter)))
        assert [on_next(230, ("b1", "b2")), on_next(250, ("a1", "a2")), on_completed(270)] == found.messages

    def test_first_come_first_taken(self) -> None:
        """Of several items with one key; three sources, the tuple in their order."""
        one, two, three = Subject[str](), Subject[str](), Subject[str]()
        seen: list[Any] = []
        one.pipe(operators.join_by(two, three, key=letter)).subscribe(seen.append)
        for source, item in ((three, "a5"), (one, "a1"), (one, "a2"), (two, "a3"), (two, "a4"), (three, "a6")):
            source.on_next(item)
        assert [("a1", "a3", "a5"), ("a2", "a4", "a6")] == seen

    def test_what_is_incomplete_is_forgotten(self) -> None:
        """After ``within`` seconds."""
        clock = TestScheduler()
        one = clock.create_hot_observable(on_next(210, "a1"), on_next(220, "b1"), on_next(255, "a3"))
        two = clock.create_hot_observable(on_next(250, "a2"), on_next(259, "b2"))
        found = clock.start(lambda: one.pipe(operators.join_by(two, key=letter, within=40.0)))
        assert [on_next(255, ("a3", "a2")), on_next(259, ("b1", "b2"))] == found.messages

    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [
            ((0.0, 9.0, 9.5, 10.5), [(9.5, ("a1", "b1")), (10.5, ("a2", "b2"))]),
            ((0.0, 9.0, 10.5, 11.0), [(10.5, ("a2", "b1"))]),
            ((0.0, 9.0, 10.0, 19.0), [(10.0, ("a2", "b1"))]),
            ((0.0, 0.0, 10.0, 20.0), []),
        ],
    )
    def test_each_item_ages_by_itself(self, seconds: tuple[float, ...], expected: list[tuple[float, Any]]) -> None:
        """Of those with one key, a late one isn't forgotten with the first."""
        clock = TestScheduler()
        a1, a2, b1, b2 = (300.0 + at for at in seconds)
        one = clock.create_hot_observable(on_next(a1, "a1"), on_next(a2, "a2"))
        two = clock.create_hot_observable(on_next(b1, "b1"), on_next(b2, "b2"))
        found = clock.start(lambda: one.pipe(operators.join_by(two, key=lambda _: "x", within=10.0)))
        assert [on_next(300.0 + at, pair) for at, pair in expected] == found.messages

    @pytest.mark.parametrize("key", [letter, lambda item: "x", lambda item: item], ids=["some", "one", "all"])
    def test_it_forgets_the_oldest(self, key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of too many that wait, whatever their keys; nothing of what is forgotten or done is kept."""
        monkeypatch.setattr(joining, "ITEMS_KEPT", 3)
        waiting = joining._Waiting(2, None, lambda: 0.0)
        for n in range(100):
            item = f"{'ab'[n % 2]}{n}"
            assert waiting.add(0, key(item), item) is None
        assert (3, 3) == (len(waiting._by_age), sum(len(line) for lines in waiting._lines.values() for line in lines))
        found = [waiting.add(1, key(item), "!") for item in ("b97", "a98", "b99")]
        assert [("b97", "!"), ("a98", "!"), ("b99", "!")] == found
        assert (0, 0) == (len(waiting._by_age), len(waiting._lines))

    def test_an_error_of_any(self) -> None:
        """Ends it."""
        clock = TestScheduler()
        error = ValueError("two")
        one = clock.create_hot_observable(on_next(210, "a1"), on_next(240, "a3"))
        two = clock.create_hot_observable(on_error(230, error))
        found = clock.start(lambda: one.pipe(operators.join_by(two, key=letter)))
        assert [on_error(230, error)] == found.messages

    def test_stories_of_a_bus(self, bus: EventBus) -> None:
        """By correlation id: two agents answer one query, and what comes of both is caused by the one that came last."""
        joined: list[tuple[Any, ...]] = []
        children = Recorder()
        bus.subscribe("query", lambda e: e.payload + 1, to="facts")
        bus.subscribe("query", lambda e: e.payload + 2, to="news")
        bus.subscribe("brief", children)
        facts, news = bus.topic("facts"), bus.topic("news")
        both = facts.pipe(operators.join_by(news), ops.do_action(joined.append), ops.map(lambda pair: [e.payload for e in pair]))
        both.subscribe(bus.topic("brief").on_next)
        events = bus.publish_many("query", range(50))
        bus.drain(LIMIT)
        assert {e.id for e in events} == {one.correlation_id for one, _ in joined} == {two.correlation_id for _, two in joined}
        assert all((one.payload, two.payload) == (one.payload, one.payload + 1) for one, two in joined)
        pairs = {frozenset((one.id, two.id)) for one, two in joined}
        assert 50 == len(children.events)
        assert all(any(child.causation_id in pair for pair in pairs) for child in children.events)
        assert {e.correlation_id for e in children.events} == {e.id for e in events}

    def test_from_two_threads(self) -> None:
        """Every pair goes out once, one at a time."""
        one, two = Subject[int](), Subject[int]()
        seen: Counter[Any] = Counter()
        inside = 0

        def observer(pair: Any) -> None:
            nonlocal inside
            inside += 1
            assert 1 == inside
            seen[pair] += 1
            inside -= 1

        one.pipe(operators.join_by(two, key=lambda n: n)).subscribe(observer)
        join(*(run_in_thread(lambda source=source: [source.on_next(n) for n in range(2000)]) for source in (one, two)))
        assert {(n, n): 1 for n in range(2000)} == seen

    @pytest.mark.parametrize(
        ("sources", "options", "message"),
        [
            ((), {}, "at least one"),
            ((5,), {}, "sources must be"),
            ((Subject(),), {"key": 5}, "key"),
            ((Subject(),), {"within": -1}, "within"),
        ],
    )
    def test_bad_input(self, sources: Any, options: Any, message: str) -> None:
        """At the call."""
        with pytest.raises((TypeError, ValueError), match=message):
            operators.join_by(*sources, **options)
