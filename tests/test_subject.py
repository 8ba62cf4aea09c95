"""`MailboxSubject`: with an `ImmediateScheduler` it is RxPY's `Subject` but for two stated differences, and what it adds to that.

Where the two must agree, one and the same test runs over both of them.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import reactivex
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.internal import DisposedException
from reactivex.scheduler import (
    CurrentThreadScheduler,
    EventLoopScheduler,
    ImmediateScheduler,
    NewThreadScheduler,
    ThreadPoolScheduler,
    TimeoutScheduler,
)
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

from rxbus import MailboxSubject, Overflow, WorkerPool

T = TypeVar("T")

END = "|"
"""How a `Recorder` writes completion down."""
LIMIT = 10.0
"""Seconds after which a wait for a thread counts as failed."""


class Recorder:
    """An observer that writes down what it is told; with a log, also there, under its name."""

    def __init__(self, name: str = "", log: list[Any] | None = None) -> None:
        self.notes: list[Any] = []
        self.ended = threading.Event()
        self._name = name
        self._log = log

    def _write(self, note: object) -> None:
        self.notes.append(note)
        if self._log is not None:
            self._log.append((self._name, note))

    def on_next(self, value: object) -> None:
        self._write(value)

    def on_error(self, error: Exception) -> None:
        self._write(error)
        self.ended.set()

    def on_completed(self) -> None:
        self._write(END)
        self.ended.set()


class Callback:
    """A callback that a weak reference can point at."""

    def __call__(self, value: object = None) -> None:
        pass


class Thing:
    """An item that a weak reference can point at."""


class InlineSubject(MailboxSubject[T]):
    """The `MailboxSubject` that stands in for a `Subject`; a class without arguments, as operators make their subjects."""

    def __init__(self) -> None:
        super().__init__(scheduler=ImmediateScheduler())


Kind = type[Subject[Any]]


@pytest.fixture(params=[Subject, InlineSubject], ids=["Subject", "MailboxSubject"])
def make(request: pytest.FixtureRequest) -> Kind:
    """What makes a subject: each test that asks for it runs with both kinds."""
    return request.param


def follow(subject: Observable[Any], *names: str) -> tuple[list[Any], dict[str, Recorder]]:
    """Subscribes a recorder for each name; returns the log that they share, and the recorders."""
    log: list[Any] = []
    recorders = {name: Recorder(name, log) for name in names}
    for recorder in recorders.values():
        subject.subscribe(recorder)
    return log, recorders


def error_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the logger `rxbus` said at ERROR."""
    return [record.getMessage() for record in caplog.records if record.name == "rxbus" and record.levelno == logging.ERROR]


ENDINGS: dict[str, Callable[[Subject[Any]], None]] = {
    "completed": lambda subject: subject.on_completed(),
    "error": lambda subject: subject.on_error(ValueError("the end")),
}
CALLS: dict[str, Callable[[Subject[Any]], None]] = {"next": lambda subject: subject.on_next(1), **ENDINGS}


class TestDelivery:
    """What observers are told, and in which order."""

    def test_is_a_subject(self, make: Kind) -> None:
        """Whoever asks for RxPY's `Subject`, its observable or its observer side by type gets one."""
        assert isinstance(make(), Subject)
        assert isinstance(make(), abc.SubjectBase)
        assert isinstance(make(), Observable)

    def test_each_observer_gets_each_item(self, make: Kind) -> None:
        """An item goes to all observers, in the order of their subscription, before `on_next` returns."""
        subject = make()
        log, _ = follow(subject, "a", "b", "c")
        subject.on_next(1)
        assert [("a", 1), ("b", 1), ("c", 1)] == log
        subject.on_next(2)
        assert [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("c", 2)] == log

    def test_items_are_the_very_objects(self, make: Kind) -> None:
        """Items travel by reference, whatever they are, falsy ones and exceptions among them."""
        subject = make()
        _, recorders = follow(subject, "a")
        items = [None, False, 0, "", [], ValueError("an item"), Thing()]
        for item in items:
            subject.on_next(item)
        assert [id(item) for item in items] == [id(note) for note in recorders["a"].notes]

    def test_without_observers(self, make: Kind) -> None:
        """What is published to nobody is gone: a later subscriber doesn't see it."""
        subject = make()
        subject.on_next(1)
        _, recorders = follow(subject, "a")
        subject.on_next(2)
        assert [2] == recorders["a"].notes

    def test_completion(self, make: Kind) -> None:
        """Completion is told to all observers in the order of their subscription."""
        subject = make()
        log, _ = follow(subject, "a", "b")
        subject.on_next(1)
        subject.on_completed()
        assert [("a", 1), ("b", 1), ("a", END), ("b", END)] == log
        assert subject.is_stopped
        assert subject.exception is None

    def test_error(self, make: Kind) -> None:
        """An error is told to all observers in the order of their subscription, as the very object."""
        subject, error = make(), ValueError("the end")
        log, _ = follow(subject, "a", "b")
        subject.on_next(1)
        subject.on_error(error)
        assert [("a", 1), ("b", 1), ("a", error), ("b", error)] == log
        assert subject.is_stopped
        assert error is subject.exception

    @pytest.mark.parametrize("later", CALLS)
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_nothing_after_the_end(self, make: Kind, ending: str, later: str) -> None:
        """After completion or an error everything is ignored, without raising."""
        subject = make()
        _, recorders = follow(subject, "a")
        ENDINGS[ending](subject)
        before, error = list(recorders["a"].notes), subject.exception
        CALLS[later](subject)
        assert 1 == len(before)
        assert before == recorders["a"].notes
        assert error is subject.exception

    def test_nothing_after_the_end_from_inside(self, make: Kind) -> None:
        """What an observer publishes while it is told of completion is ignored."""
        subject = make()
        log: list[Any] = []
        subject.subscribe(lambda value: log.append(("a", value)), on_completed=lambda: subject.on_next("late"))
        subject.subscribe(Recorder("b", log))
        subject.on_completed()
        assert [("b", END)] == log

    def test_callbacks(self, make: Kind) -> None:
        """Plain callbacks serve as an observer."""
        subject, log = make(), []
        subject.subscribe(lambda value: log.append(value), log.append, lambda: log.append(END))
        subject.on_next(1)
        subject.on_completed()
        assert [1, END] == log

    def test_error_callback(self, make: Kind) -> None:
        """The second callback is the one for errors."""
        subject, log, error = make(), [], ValueError("the end")
        subject.subscribe(on_error=log.append)
        subject.on_next(1)
        subject.on_error(error)
        assert [error] == log

    def test_no_callbacks_at_all(self, make: Kind) -> None:
        """A subscription without any callback takes its place among the observers and disturbs nothing."""
        subject = make()
        subject.subscribe()
        _, recorders = follow(subject, "a")
        assert 2 == len(subject.observers)
        subject.on_next(1)
        subject.on_completed()
        assert [1, END] == recorders["a"].notes

    def test_one_observer_twice(self, make: Kind) -> None:
        """Who subscribes twice gets everything twice, and loses one of the two when it disposes of one."""
        subject, recorder = make(), Recorder()
        first = subject.subscribe(recorder)
        subject.subscribe(recorder)
        subject.on_next(1)
        first.dispose()
        subject.on_next(2)
        subject.on_completed()
        assert [1, 1, 2, END] == recorder.notes

    def test_fail(self, make: Kind) -> None:
        """`Observer.fail` ends it as an error and says whether it was open."""
        subject, error = make(), ValueError("the end")
        log, _ = follow(subject, "a", "b")
        assert subject.fail(error) is True
        assert [("a", error), ("b", error)] == log
        assert [] == subject.observers
        assert subject.fail(error) is False

    def test_other_faces(self, make: Kind) -> None:
        """`as_observer` and `to_notifier` lead to the same observers."""
        subject = make()
        _, recorders = follow(subject, "a")
        subject.as_observer().on_next(1)
        subject.to_notifier()(reactivex.notification.OnNext(2))
        subject.as_observer().on_completed()
        assert [1, 2, END] == recorders["a"].notes


class TestLateSubscription:
    """Who subscribes after the end."""

    def test_after_completion(self, make: Kind) -> None:
        """It is told of completion at once, and isn't kept."""
        subject, recorder = make(), Recorder()
        subject.on_next(1)
        subject.on_completed()
        subject.subscribe(recorder).dispose()
        assert [END] == recorder.notes
        assert [] == subject.observers

    def test_after_an_error(self, make: Kind) -> None:
        """It is told of the error at once, each time the very object, and isn't kept."""
        subject, error, first, second = make(), ValueError("the end"), Recorder(), Recorder()
        subject.on_error(error)
        subject.subscribe(first)
        subject.subscribe(second)
        assert [error] == first.notes
        assert [error] == second.notes
        assert [] == subject.observers

    def test_after_an_error_without_a_callback_for_it(self, make: Kind) -> None:
        """Without a callback for errors the error comes out of `subscribe`."""
        subject, error = make(), ValueError("the end")
        subject.on_error(error)
        with pytest.raises(ValueError, match="the end") as raised:
            subject.subscribe(lambda value: None)
        assert error is raised.value

    def test_after_dispose(self, make: Kind) -> None:
        """Its callback for errors gets a `DisposedException`."""
        subject, recorder = make(), Recorder()
        subject.dispose()
        subject.subscribe(recorder)
        assert [DisposedException] == [type(note) for note in recorder.notes]
        assert [] == subject.observers

    def test_after_dispose_without_a_callback_for_it(self, make: Kind) -> None:
        """Without a callback for errors `subscribe` raises a `DisposedException`."""
        subject = make()
        subject.dispose()
        with pytest.raises(DisposedException):
            subject.subscribe(lambda value: None)

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_after_the_end_and_dispose(self, make: Kind, ending: str) -> None:
        """Dispose wins over an end before it: the error is forgotten."""
        subject, recorder = make(), Recorder()
        ENDINGS[ending](subject)
        subject.dispose()
        subject.subscribe(recorder)
        assert [DisposedException] == [type(note) for note in recorder.notes]
        assert subject.exception is None

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_while_the_end_is_told(self, make: Kind, ending: str) -> None:
        """Who subscribes while the others are being told of the end is told too, at once and once."""
        subject, late = make(), Recorder()

        def join(_: object = None) -> None:
            subject.subscribe(late)

        subject.subscribe(on_error=join, on_completed=join)
        _, recorders = follow(subject, "b")
        ENDINGS[ending](subject)
        assert recorders["b"].notes == late.notes
        assert 1 == len(late.notes)


class TestDispose:
    """The end of the subject itself."""

    @pytest.mark.parametrize("call", CALLS)
    def test_publishing_after_dispose(self, make: Kind, call: str) -> None:
        """After `dispose` each call of the observer side raises `DisposedException`."""
        subject = make()
        subject.dispose()
        with pytest.raises(DisposedException):
            CALLS[call](subject)

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_publishing_after_the_end_and_dispose(self, make: Kind, ending: str, call: str) -> None:
        """After an end and `dispose` each call of the observer side raises, too."""
        subject = make()
        ENDINGS[ending](subject)
        subject.dispose()
        with pytest.raises(DisposedException):
            CALLS[call](subject)

    def test_observers_hear_nothing(self, make: Kind) -> None:
        """Observers aren't told that the subject was disposed of."""
        subject = make()
        _, recorders = follow(subject, "a")
        subject.on_next(1)
        subject.dispose()
        assert [1] == recorders["a"].notes
        assert subject.is_disposed

    def test_twice(self, make: Kind) -> None:
        """A second `dispose` does nothing."""
        subject = make()
        subject.dispose()
        subject.dispose()
        assert subject.is_disposed

    def test_unsubscribing_after_dispose(self, make: Kind) -> None:
        """A subscription that outlived its subject can be disposed of."""
        subject, recorder = make(), Recorder()
        subscription = subject.subscribe(recorder)
        subject.dispose()
        subscription.dispose()
        assert [] == recorder.notes
        assert [] == subject.observers

    def test_by_an_observer(self, make: Kind) -> None:
        """An item that is on its way when an observer disposes of the subject still reaches the others."""
        subject, recorder = make(), Recorder()
        subject.subscribe(lambda value: subject.dispose())
        subject.subscribe(recorder)
        subject.on_next(1)
        with pytest.raises(DisposedException):
            subject.on_next(2)
        assert [1] == recorder.notes

    def test_by_an_observer_at_the_end(self, make: Kind) -> None:
        """Completion that is on its way when an observer disposes of the subject still reaches the others."""
        subject, recorder = make(), Recorder()
        subject.subscribe(on_completed=lambda: subject.dispose())
        subject.subscribe(recorder)
        subject.on_completed()
        assert [END] == recorder.notes
        assert subject.is_disposed


class TestUnsubscribe:
    """The end of one subscription."""

    def test_one_of_several(self, make: Kind) -> None:
        """Who unsubscribed gets nothing more, not even completion; the others go on."""
        subject, first, second = make(), Recorder(), Recorder()
        subscription = subject.subscribe(first)
        subject.subscribe(second)
        subject.on_next(1)
        subscription.dispose()
        subject.on_next(2)
        subject.on_completed()
        assert [1] == first.notes
        assert [1, 2, END] == second.notes

    def test_twice(self, make: Kind) -> None:
        """A second dispose of a subscription takes nobody else's place."""
        subject, recorder = make(), Recorder()
        subscription = subject.subscribe(recorder)
        subject.subscribe(recorder)
        subscription.dispose()
        subscription.dispose()
        subject.on_next(1)
        assert [1] == recorder.notes
        assert 1 == len(subject.observers)

    def test_and_again(self, make: Kind) -> None:
        """Who subscribes anew stands last, and misses what came between."""
        subject = make()
        log: list[Any] = []
        first = Recorder("a", log)
        subscription = subject.subscribe(first)
        subject.subscribe(Recorder("b", log))
        subscription.dispose()
        subject.on_next(1)
        subject.subscribe(first)
        subject.on_next(2)
        assert [("b", 1), ("b", 2), ("a", 2)] == log

    def test_after_the_end(self, make: Kind) -> None:
        """A subscription that saw the end can be disposed of."""
        subject, recorder = make(), Recorder()
        subscription = subject.subscribe(recorder)
        subject.on_completed()
        subscription.dispose()
        assert [END] == recorder.notes

    def test_oneself_during_an_item(self, make: Kind) -> None:
        """Who unsubscribes while it handles an item gets no other; its neighbours get all."""
        subject = make()
        log, _ = follow(subject, "before")
        own: list[abc.DisposableBase] = []

        def leave(value: object) -> None:
            log.append(("leaver", value))
            own[0].dispose()

        own.append(subject.subscribe(leave))
        subject.subscribe(Recorder("after", log))
        subject.on_next(1)
        subject.on_next(2)
        assert [("before", 1), ("leaver", 1), ("after", 1), ("before", 2), ("after", 2)] == log

    @pytest.mark.parametrize(
        ("victim", "expected"),
        [
            (0, [("a", 1), ("b", 1), ("c", 1), ("b", 2), ("c", 2)]),
            (2, [("a", 1), ("b", 1), ("a", 2), ("b", 2)]),
        ],
        ids=["who had it", "who would have it next"],
    )
    def test_another_during_an_item(self, make: Kind, victim: int, expected: list[Any]) -> None:
        """Who is unsubscribed while an item goes round doesn't get it any more; the others do."""
        subject = make()
        log: list[Any] = []
        subscriptions: list[abc.DisposableBase] = []

        def remove(value: object) -> None:
            log.append(("b", value))
            subscriptions[victim].dispose()

        subscriptions.append(subject.subscribe(Recorder("a", log)))
        subscriptions.append(subject.subscribe(remove))
        subscriptions.append(subject.subscribe(Recorder("c", log)))
        subject.on_next(1)
        subject.on_next(2)
        assert expected == log

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_another_during_the_end(self, make: Kind, ending: str) -> None:
        """Who is unsubscribed while the end goes round isn't told of it any more; the others are."""
        subject, second, third = make(), Recorder(), Recorder()
        subscriptions: list[abc.DisposableBase] = []

        def remove(_: object = None) -> None:
            subscriptions[0].dispose()

        subject.subscribe(on_error=remove, on_completed=remove)
        subscriptions.append(subject.subscribe(second))
        subject.subscribe(third)
        ENDINGS[ending](subject)
        assert [] == second.notes
        assert 1 == len(third.notes)

    def test_by_an_operator(self, make: Kind) -> None:
        """An operator that had enough completes its observer and leaves the subject."""
        subject, recorder = make(), Recorder()
        subject.pipe(ops.take(2)).subscribe(recorder)
        for item in (1, 2, 3):
            subject.on_next(item)
        assert [1, 2, END] == recorder.notes
        assert [] == subject.observers

    def test_by_a_failing_operator(self, make: Kind) -> None:
        """An operator that fails tells its observer, leaves the subject, and costs nobody else anything."""
        subject, recorder, neighbour = make(), Recorder(), Recorder()
        subject.pipe(ops.map(lambda value: 1 / value)).subscribe(recorder)
        subject.subscribe(neighbour)
        for item in (1, 0, 2):
            subject.on_next(item)
        assert [float, ZeroDivisionError] == [type(note) for note in recorder.notes]
        assert [1, 0, 2] == neighbour.notes
        assert 1 == len(subject.observers)


class TestSubscribeDuringEmission:
    """Who subscribes from inside an observer."""

    def test_misses_the_item_in_progress(self, make: Kind) -> None:
        """A new observer doesn't get the item during which it subscribed, and gets all later ones."""
        subject, late = make(), Recorder()

        def join(value: int) -> None:
            if value == 1:
                subject.subscribe(late)

        subject.subscribe(join)
        _, recorders = follow(subject, "b")
        for item in (1, 2, 3):
            subject.on_next(item)
        subject.on_completed()
        assert [2, 3, END] == late.notes
        assert [1, 2, 3, END] == recorders["b"].notes

    def test_stands_last(self, make: Kind) -> None:
        """A new observer gets its items after those that were there before it."""
        subject = make()
        log: list[Any] = []

        def join(value: int) -> None:
            log.append(("a", value))
            if value == 1:
                subject.subscribe(Recorder("late", log))

        subject.subscribe(join)
        subject.subscribe(Recorder("b", log))
        subject.on_next(1)
        subject.on_next(2)
        assert [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("late", 2)] == log

    def test_and_leaves_again(self, make: Kind) -> None:
        """Subscribing and unsubscribing within one item leaves no trace."""
        subject, late = make(), Recorder()
        subject.subscribe(lambda value: subject.subscribe(late).dispose())
        subject.on_next(1)
        subject.on_next(2)
        assert [] == late.notes
        assert 1 == len(subject.observers)

    def test_in_place_of_oneself(self, make: Kind) -> None:
        """An observer that replaces itself at each item misses none and doubles none."""
        subject, seen = make(), []
        own: list[abc.DisposableBase] = []

        def replace(value: int) -> None:
            seen.append(value)
            own.pop().dispose()
            own.append(subject.subscribe(replace))

        own.append(subject.subscribe(replace))
        for item in (1, 2, 3):
            subject.on_next(item)
        assert [1, 2, 3] == seen
        assert 1 == len(subject.observers)


class TestObservers:
    """The attribute `observers`."""

    def test_stand_in_the_order_of_subscription(self, make: Kind) -> None:
        """The list holds what was subscribed, in that order, as observers that can be called."""
        subject = make()
        log, _ = follow(subject, "a", "b", "c")
        for number, observer in enumerate(subject.observers):
            observer.on_next(number)
        assert [("a", 0), ("b", 1), ("c", 2)] == log

    def test_empty_at_first(self, make: Kind) -> None:
        """A new subject has no observers."""
        assert [] == make().observers

    def test_without_who_unsubscribed(self, make: Kind) -> None:
        """Who unsubscribed is taken out, the others keep their order."""
        subject, log = make(), []
        subscriptions = [subject.subscribe(Recorder(name, log)) for name in "abc"]
        subscriptions[1].dispose()
        for number, observer in enumerate(subject.observers):
            observer.on_next(number)
        assert [("a", 0), ("c", 1)] == log
        subscriptions[0].dispose()
        subscriptions[2].dispose()
        assert [] == subject.observers

    @pytest.mark.parametrize("ending", [*ENDINGS, "dispose"])
    def test_empty_after_the_end(self, make: Kind, ending: str) -> None:
        """Completion, an error and `dispose` empty the list."""
        subject = make()
        follow(subject, "a", "b")
        assert 2 == len(subject.observers)
        {**ENDINGS, "dispose": lambda subject: subject.dispose()}[ending](subject)
        assert [] == subject.observers

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_empty_while_the_end_is_told(self, make: Kind, ending: str) -> None:
        """The list is empty already when the first observer is told of the end."""
        subject, lengths = make(), []

        def look(_: object = None) -> None:
            lengths.append(len(subject.observers))

        subject.subscribe(look, look, look)
        subject.subscribe(look, look, look)
        subject.on_next(1)
        ENDINGS[ending](subject)
        assert [2, 2, 0, 0] == lengths


class TestLeaks:
    """What a subject that lives on keeps of what is over."""

    def test_while_subscribed(self, make: Kind) -> None:
        """A subscribed observer is kept though nobody else holds it."""
        subject, callback = make(), Callback()
        reference = weakref.ref(callback)
        subject.subscribe(callback)
        del callback
        gc.collect()
        assert reference() is not None

    def test_after_unsubscribing(self, make: Kind) -> None:
        """An observer that unsubscribed isn't kept."""
        subject, callback = make(), Callback()
        reference = weakref.ref(callback)
        subscription = subject.subscribe(callback)
        subject.on_next(1)
        subscription.dispose()
        del callback, subscription
        gc.collect()
        assert reference() is None
        subject.on_next(2)

    def test_after_unsubscribing_during_an_item(self, make: Kind) -> None:
        """An observer that an operator unsubscribed during an item isn't kept."""
        subject, callback = make(), Callback()
        reference = weakref.ref(callback)
        subject.pipe(ops.take(1)).subscribe(callback)
        subject.on_next(1)
        del callback
        gc.collect()
        assert reference() is None
        subject.on_next(2)

    @pytest.mark.parametrize("ending", ["completed", "error", "dispose"])
    def test_after_the_end(self, make: Kind, ending: str) -> None:
        """No observer is kept after completion, an error or `dispose`."""
        subject, callback = make(), Callback()
        reference = weakref.ref(callback)
        subject.subscribe(callback, lambda error: None)
        subject.on_next(1)
        {**ENDINGS, "dispose": lambda subject: subject.dispose()}[ending](subject)
        del callback
        gc.collect()
        assert reference() is None
        assert subject.is_stopped

    def test_of_late_subscribers(self, make: Kind) -> None:
        """Who subscribed after the end isn't kept."""
        subject, callback = make(), Callback()
        reference = weakref.ref(callback)
        subject.on_completed()
        subject.subscribe(callback, on_completed=callback)
        del callback
        gc.collect()
        assert reference() is None
        assert subject.is_stopped

    def test_of_items(self, make: Kind) -> None:
        """An item that was delivered isn't kept."""
        subject, item = make(), Thing()
        reference = weakref.ref(item)
        subject.subscribe(lambda value: None)
        subject.on_next(item)
        del item
        gc.collect()
        assert reference() is None
        assert 1 == len(subject.observers)

    def test_of_the_subject(self, make: Kind) -> None:
        """A subject that nobody holds is gone, its observers with it, without having been ended."""
        subject, callback = make(), Callback()
        references = [weakref.ref(subject), weakref.ref(callback)]
        subject.subscribe(callback)
        subject.on_next(1)
        del subject, callback
        gc.collect()
        assert [None, None] == [reference() for reference in references]

    def test_of_an_observer_that_raised(self) -> None:
        """The report of a failure keeps nothing that the failing call knew, even while the observer stays subscribed."""
        subject, references = InlineSubject(), []

        def fail(value: object) -> None:
            local = Thing()
            references.extend([weakref.ref(local), weakref.ref(value)])
            raise ValueError("at this item")

        subject.subscribe(fail)
        subject.on_next(Thing())
        gc.collect()
        assert [None, None] == [reference() for reference in references]
        assert 1 == len(subject.observers)


class TestAsAnObserver:
    """A subject that is subscribed to something."""

    def test_of_a_cold_source(self, make: Kind) -> None:
        """It passes on what the source emits, its completion too."""
        subject = make()
        log, _ = follow(subject, "a", "b")
        reactivex.of(1, 2).subscribe(subject)
        assert [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", END), ("b", END)] == log

    def test_of_a_failing_source(self, make: Kind) -> None:
        """It passes on the source's error."""
        subject, error = make(), ValueError("the end")
        _, recorders = follow(subject, "a")
        reactivex.concat(reactivex.of(1), reactivex.throw(error)).subscribe(subject)
        assert [1, error] == recorders["a"].notes

    def test_of_another_subject(self, make: Kind) -> None:
        """Subjects form chains through operators; the end travels along, and nobody stays subscribed."""
        first, second = make(), make()
        _, recorders = follow(second, "a")
        first.pipe(ops.map(lambda value: value * 10), ops.filter(lambda value: value != 20)).subscribe(second)
        for item in (1, 2, 3):
            first.on_next(item)
        first.on_completed()
        assert [10, 30, END] == recorders["a"].notes
        assert second.is_stopped
        assert [] == first.observers

    def test_through_its_methods(self, make: Kind) -> None:
        """Its bound methods serve as callbacks."""
        first, second = make(), make()
        _, recorders = follow(second, "a")
        first.subscribe(second.on_next, second.on_error, second.on_completed)
        first.on_next(1)
        first.on_completed()
        assert [1, END] == recorders["a"].notes

    def test_until_it_is_unsubscribed(self, make: Kind) -> None:
        """Unsubscribed from its source it stays open for others."""
        first, second = make(), make()
        _, recorders = follow(second, "a")
        subscription = first.subscribe(second)
        first.on_next(1)
        subscription.dispose()
        first.on_next(2)
        first.on_completed()
        second.on_next(3)
        assert [1, 3] == recorders["a"].notes

    def test_of_two_sources(self, make: Kind) -> None:
        """The first of several sources that ends it ends it for all."""
        first, second, target = make(), make(), make()
        _, recorders = follow(target, "a")
        first.subscribe(target)
        second.subscribe(target)
        first.on_next(1)
        second.on_next(2)
        first.on_completed()
        second.on_next(3)
        assert [1, 2, END] == recorders["a"].notes

    def test_that_was_disposed_of(self, make: Kind) -> None:
        """A disposed target raises `DisposedException` at each item of its source."""
        source, target = Subject[int](), make()
        source.subscribe(target)
        target.dispose()
        with pytest.raises(DisposedException):
            source.on_next(1)

    def test_in_a_diamond(self, make: Kind) -> None:
        """Branches of one subject meet again in the order in which they were subscribed."""
        subject, recorder = make(), Recorder()
        reactivex.merge(subject, subject.pipe(ops.map(str)), subject).subscribe(recorder)
        subject.on_next(1)
        subject.on_next(2)
        subject.on_completed()
        assert [1, "1", 1, 2, "2", 2, END] == recorder.notes


class TestChains:
    """Subjects that feed subjects, none of them from inside its own delivery."""

    def test_first_come_first_served(self, make: Kind) -> None:
        """An observer hears of an item after all that follows from it at the observers before it."""
        first, second, third = make(), make(), make()
        log: list[Any] = []
        first.subscribe(second)
        second.subscribe(third)
        third.subscribe(Recorder("behind the first observer", log))
        second.subscribe(Recorder("second observer", log))
        first.on_next(1)
        assert [("behind the first observer", 1), ("second observer", 1)] == log

    def test_branches_that_meet(self, make: Kind) -> None:
        """`combine_latest` over a chain and its head emits the same pairs."""
        source, head, tail = make(), make(), make()
        recorder = Recorder()
        source.subscribe(head)
        head.subscribe(tail)
        reactivex.combine_latest(tail, head).subscribe(recorder)
        for item in (1, 2):
            source.on_next(item)
        assert [(1, 1), (2, 1), (2, 2)] == recorder.notes


Step = tuple[str, Any]

REACTIONS = st.none() | st.tuples(st.just("unsubscribe"), st.integers(0, 5)) | st.tuples(st.just("subscribe"), st.none())
STEPS = st.one_of(
    st.tuples(st.just("on_next"), st.integers(0, 9)),
    st.tuples(st.just("on_next"), st.integers(0, 9)),
    st.tuples(st.just("subscribe"), REACTIONS),
    st.tuples(st.just("subscribe"), REACTIONS),
    st.tuples(st.just("unsubscribe"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["on_completed", "on_error", "dispose"]), st.none()),
)


class Play:
    """Runs a script on a subject and writes down all that can be seen from outside. An observer may react to its first note."""

    ERROR = ValueError("the end")

    def __init__(self, subject: Subject[Any]) -> None:
        self.log: list[Any] = []
        self._subject = subject
        self._subscriptions: list[abc.DisposableBase | None] = []

    def run(self, script: list[Step]) -> list[Any]:
        for step in script:
            try:
                self._do(*step)
            except DisposedException:
                self.log.append("raised")
            self.log.append(len(self._subject.observers))
        return self.log

    def _do(self, verb: str, argument: Any) -> None:
        if verb == "subscribe":
            self._subscribe(argument)
        elif verb == "unsubscribe":
            subscription = self._subscriptions[argument] if argument < len(self._subscriptions) else None
            if subscription is not None:
                subscription.dispose()
        elif verb == "on_next":
            self._subject.on_next(argument)
        elif verb == "on_error":
            self._subject.on_error(self.ERROR)
        else:
            getattr(self._subject, verb)()

    def _subscribe(self, reaction: Step | None) -> None:
        number = len(self._subscriptions)
        self._subscriptions.append(None)
        reactions = [] if reaction is None else [reaction]

        def hear(note: object) -> None:
            self.log.append((number, repr(note)))
            if reactions:
                self._do(*reactions.pop())

        self._subscriptions[number] = self._subject.subscribe(hear, hear, lambda: hear(END))


class TestAgainstSubject:
    """Any sequence of calls."""

    @settings(deadline=None, max_examples=200)
    @given(st.lists(STEPS, max_size=25))
    def test_any_script(self, script: list[Step]) -> None:
        """Whatever is called in whatever order, both say the same to the same observers at the same moment."""
        assert Play(Subject()).run(script) == Play(InlineSubject()).run(script)


HOME = "reactivex.operators"
ROOMS = ["_groupbyuntil", "_groupjoin", "_publish", "_window", "_windowwithcount", "_windowwithtime", "_windowwithtimeorcount"]
"""The modules of RxPY that make a `Subject` of their own."""

on_next, on_completed, on_error = ReactiveTest.on_next, ReactiveTest.on_completed, ReactiveTest.on_error
ITEMS = [on_next(210 + 20 * number, number) for number in range(12)]
SOURCES = {
    "completing": [*ITEMS, on_completed(460)],
    "failing": [*ITEMS, on_error(460, ValueError("the end"))],
    "endless": ITEMS,
}

Build = Callable[[Observable[Any], Kind, TestScheduler], Any]
OPERATORS: dict[str, Build] = {
    "multicast and connect": lambda source, kind, clock: source.pipe(ops.multicast(kind())),
    "multicast and ref_count": lambda source, kind, clock: source.pipe(ops.multicast(kind()), ops.ref_count()),
    "multicast and auto_connect": lambda source, kind, clock: source.pipe(ops.multicast(kind())).auto_connect(2),
    "multicast with a mapper": lambda source, kind, clock: source.pipe(
        ops.multicast(subject_factory=lambda _: kind(), mapper=lambda one: one.pipe(ops.zip(one.pipe(ops.skip(1)))))
    ),
    "publish and connect": lambda source, kind, clock: source.pipe(ops.publish()),
    "publish and ref_count": lambda source, kind, clock: source.pipe(ops.publish(), ops.ref_count()),
    "publish with a mapper": lambda source, kind, clock: source.pipe(
        ops.publish(lambda one: reactivex.combine_latest(one.pipe(ops.filter(lambda item: item % 2)), one))
    ),
    "share": lambda source, kind, clock: source.pipe(ops.share()),
    "partition": lambda source, kind, clock: reactivex.merge(*source.pipe(ops.partition(lambda item: item % 2))),
    "window": lambda source, kind, clock: source.pipe(ops.window(reactivex.interval(45, scheduler=clock))),
    "window_when": lambda source, kind, clock: source.pipe(ops.window_when(lambda: reactivex.timer(45, scheduler=clock))),
    "window_toggle": lambda source, kind, clock: source.pipe(
        ops.window_toggle(reactivex.interval(45, scheduler=clock), lambda _: reactivex.timer(70, scheduler=clock))
    ),
    "window_with_count": lambda source, kind, clock: source.pipe(ops.window_with_count(3)),
    "window_with_count, overlapping": lambda source, kind, clock: source.pipe(ops.window_with_count(3, 1)),
    "window_with_count, with gaps": lambda source, kind, clock: source.pipe(ops.window_with_count(2, 3)),
    "window_with_time": lambda source, kind, clock: source.pipe(ops.window_with_time(70, 45, scheduler=clock)),
    "window_with_time_or_count": lambda source, kind, clock: source.pipe(ops.window_with_time_or_count(70, 3, scheduler=clock)),
    "buffer_with_count": lambda source, kind, clock: source.pipe(ops.buffer_with_count(3, 2)),
    "group_by": lambda source, kind, clock: source.pipe(ops.group_by(lambda item: item % 3)),
    "group_by with a subject_mapper": lambda source, kind, clock: source.pipe(
        ops.group_by(lambda item: item % 3, lambda item: item * 10, subject_mapper=kind)
    ),
    "group_by_until": lambda source, kind, clock: source.pipe(
        ops.group_by_until(lambda item: item % 3, None, lambda group: reactivex.timer(70, scheduler=clock))
    ),
    "group_by_until with a subject_mapper": lambda source, kind, clock: source.pipe(
        ops.group_by_until(lambda item: item % 3, None, lambda group: group.pipe(ops.skip(1)), kind)
    ),
    "group_join": lambda source, kind, clock: source.pipe(
        ops.group_join(
            source.pipe(ops.map(str)),
            lambda _: reactivex.timer(45, scheduler=clock),
            lambda _: reactivex.timer(30, scheduler=clock),
        ),
        ops.map(lambda pair: pair[1]),
    ),
}


class Trace:
    """The output of an operator built on one kind of subject: three subscribers that come and go, windows and groups followed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Kind, build: Build, messages: list[Any]) -> None:
        self.notes: list[tuple[float, str, str]] = []
        self.subjects = 0
        self._clock = TestScheduler()
        trace = self

        class Counted(kind[T]):  # type: ignore[misc,valid-type]
            def __init__(self) -> None:
                super().__init__()
                trace.subjects += 1

        with monkeypatch.context() as patch:
            for room in ROOMS:
                patch.setattr(f"{HOME}.{room}.Subject", Counted)
            self._run(build(self._clock.create_hot_observable(messages), Counted, self._clock))

    def _run(self, output: Any) -> None:
        subscriptions: dict[str, abc.DisposableBase] = {}

        def at(moment: float, action: Callable[[], object]) -> None:
            self._clock.schedule_absolute(moment, lambda *_: action())

        at(200, lambda: subscriptions.update(first=self._watch("first", output)))
        if hasattr(output, "connect"):
            at(205, output.connect)
        at(260, lambda: subscriptions.update(second=self._watch("second", output)))
        at(330, lambda: subscriptions["first"].dispose())
        at(480, lambda: subscriptions["second"].dispose())
        at(490, lambda: subscriptions.update(third=self._watch("third", output)))
        at(500, lambda: subscriptions["third"].dispose())
        self._clock.advance_to(600)

    def _watch(self, name: str, output: Observable[Any]) -> abc.DisposableBase:
        inner = 0

        def hear(note: object) -> None:
            nonlocal inner
            if not isinstance(note, Observable):
                self.notes.append((self._clock.clock, name, repr(note)))
                return
            inner += 1
            self.notes.append((self._clock.clock, name, f"opens {inner}"))
            self._watch(f"{name}.{inner}", note)

        return output.subscribe(hear, hear, lambda: hear(END))


class TestInOperators:
    """RxPY's operators that are built on subjects, built on this one."""

    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("operator", OPERATORS)
    def test_same_output(self, monkeypatch: pytest.MonkeyPatch, operator: str, source: str) -> None:
        """Each operator says the same at the same virtual time, with as many subjects, whichever kind it is built on."""
        expected, found = (Trace(monkeypatch, kind, OPERATORS[operator], SOURCES[source]) for kind in (Subject, InlineSubject))
        assert expected.notes == found.notes
        assert expected.subjects == found.subjects
        assert found.subjects >= 1
        assert len(found.notes) >= 6

    def test_multicast_and_connect(self, make: Kind) -> None:
        """Nothing flows before `connect`, then one subscription of the source serves all."""
        counted = []
        source = reactivex.of(1, 2).pipe(ops.do_action(counted.append))
        shared = source.pipe(ops.multicast(make()))
        log, _ = follow(shared, "a", "b")
        assert [] == log
        shared.connect()
        assert [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", END), ("b", END)] == log
        assert [1, 2] == counted

    def test_ref_count(self, make: Kind) -> None:
        """The source is subscribed with the first observer, left with the last, and subscribed anew after that."""
        source, subject = Subject[int](), make()
        shared = source.pipe(ops.multicast(subject), ops.ref_count())
        first, second = Recorder(), Recorder()
        one = shared.subscribe(first)
        two = shared.subscribe(second)
        source.on_next(1)
        one.dispose()
        source.on_next(2)
        assert 1 == len(source.observers)
        two.dispose()
        assert [] == source.observers
        assert [] == subject.observers
        source.on_next(3)
        shared.subscribe(first)
        source.on_next(4)
        assert [1, 4] == first.notes
        assert [1, 2] == second.notes

    def test_windows(self, monkeypatch: pytest.MonkeyPatch, make: Kind) -> None:
        """`window_with_count` cuts the source into windows that complete."""
        monkeypatch.setattr(f"{HOME}._windowwithcount.Subject", make)
        recorder = Recorder()
        reactivex.range(5).pipe(ops.window_with_count(2), ops.flat_map(lambda window: window.pipe(ops.to_list()))).subscribe(recorder)
        assert [[0, 1], [2, 3], [4], END] == recorder.notes

    def test_groups(self, make: Kind) -> None:
        """`group_by` with its subject_mapper sorts the source into groups that complete."""
        recorder = Recorder()
        reactivex.range(5).pipe(
            ops.group_by(lambda item: item % 2, subject_mapper=make),
            ops.flat_map(lambda group: group.pipe(ops.to_list(), ops.map(lambda items: (group.key, items)))),
        ).subscribe(recorder)
        assert [(0, [0, 2, 4]), (1, [1, 3]), END] == recorder.notes


def publish_two_at_one(subject: Subject[Any], log: list[Any]) -> None:
    """Subscribes an observer that publishes 2 while it handles 1."""

    def hear(value: object) -> None:
        log.append(("a", value))
        if value == 1:
            subject.on_next(2)

    subject.subscribe(hear)


class TestReentrantItems:
    """The first stated difference: items published while one is delivered keep their order for everybody."""

    def test_keep_their_order(self) -> None:
        """All observers have got all items, in the order in which they were published, when the outer `on_next` returns."""
        subject, log = InlineSubject(), []
        publish_two_at_one(subject, log)
        subject.subscribe(Recorder("b", log))
        subject.subscribe(Recorder("c", log))
        subject.on_next(1)
        for name in "abc":
            assert [1, 2] == [note for who, note in log if who == name]

    def test_of_a_subject_overtake(self) -> None:
        """With a plain `Subject` the inner item overtakes the outer one at every observer behind the publishing one."""
        subject, log = Subject[Any](), []
        publish_two_at_one(subject, log)
        subject.subscribe(Recorder("b", log))
        subject.on_next(1)
        assert [("a", 1), ("a", 2), ("b", 2), ("b", 1)] == log

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_the_end_comes_after_the_item(self, ending: str) -> None:
        """An end that an observer calls while it handles an item reaches the others after that item."""
        subject, second = InlineSubject(), Recorder()
        subject.subscribe(lambda value: ENDINGS[ending](subject), lambda error: None)
        subject.subscribe(second)
        subject.on_next(1)
        assert 1 == second.notes[0]
        assert [END if ending == "completed" else subject.exception] == second.notes[1:]

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_the_end_of_a_subject_swallows_the_item(self, ending: str) -> None:
        """With a plain `Subject` the others never see the item during which it ended."""
        subject, second = Subject[Any](), Recorder()
        subject.subscribe(lambda value: ENDINGS[ending](subject), lambda error: None)
        subject.subscribe(second)
        subject.on_next(1)
        assert [END if ending == "completed" else subject.exception] == second.notes

    def test_several_at_once(self) -> None:
        """What several observers publish while they handle one item is seen by all in one order."""
        subject, log = InlineSubject(), []
        for name in "ab":
            subject.subscribe(lambda value, name=name: subject.on_next(name) if value == 1 else None)
        _, recorders = follow(subject, "c", "d")
        subject.subscribe(log.append)
        subject.on_next(1)
        assert [1, "a", "b"] == log
        assert [1, "a", "b"] == recorders["c"].notes
        assert [1, "a", "b"] == recorders["d"].notes

    def test_to_who_subscribed_on_the_way(self) -> None:
        """Who subscribes during an item gets what is published after that, though the item is still going round."""
        subject, late, neighbour = InlineSubject(), Recorder(), Recorder()

        def join_and_publish(value: int) -> None:
            if value == 1:
                subject.subscribe(late)
                subject.on_next(2)

        subject.subscribe(join_and_publish)
        subject.subscribe(neighbour)
        subject.on_next(1)
        assert [2] == late.notes
        assert [1, 2] == neighbour.notes

    def test_dont_reach_who_left(self) -> None:
        """Who publishes and then unsubscribes, all within one item, doesn't get what it published; the others do."""
        subject, seen, neighbour = InlineSubject(), [], Recorder()
        own: list[abc.DisposableBase] = []

        def publish_and_leave(value: int) -> None:
            seen.append(value)
            subject.on_next(2)
            own[0].dispose()

        own.append(subject.subscribe(publish_and_leave))
        subject.subscribe(neighbour)
        subject.on_next(1)
        assert [1] == seen
        assert [1, 2] == neighbour.notes

    def test_from_another_thread(self) -> None:
        """An item that another thread publishes during a delivery comes after the one in progress, without a deadlock."""
        subject, second, finished = InlineSubject(), Recorder(), []

        def publish(value: int) -> None:
            if value == 1:
                thread = threading.Thread(target=subject.on_next, args=(2,))
                thread.start()
                thread.join(LIMIT)
                finished.append(not thread.is_alive())

        subject.subscribe(publish)
        subject.subscribe(second)
        subject.on_next(1)
        assert [True] == finished
        assert [1, 2] == second.notes

    def test_dont_pile_up_on_the_stack(self) -> None:
        """A cycle of ten thousand steps through two subjects needs no deeper stack than one step."""
        first, second, seen = InlineSubject(), InlineSubject(), []
        first.pipe(ops.filter(bool)).subscribe(lambda value: second.on_next(value - 1))
        second.subscribe(first)
        second.subscribe(seen.append)
        first.on_next(10_000)
        assert list(range(9_999, -1, -1)) == seen

    def test_of_subjects_pile_up_on_the_stack(self) -> None:
        """With plain `Subject`s the same cycle is a recursion that fails."""
        first, second = Subject[int](), Subject[int]()
        first.pipe(ops.filter(bool)).subscribe(lambda value: second.on_next(value - 1))
        second.subscribe(first)
        with pytest.raises(RecursionError):
            first.on_next(10_000)


class Unprintable(Exception):
    """An exception whose text can't be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class TestRaisingObservers:
    """The second stated difference: an observer that raises harms nobody, is logged, and gets the next item."""

    @pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Unprintable])
    def test_harm_nobody(self, caplog: pytest.LogCaptureFixture, kind: type[BaseException]) -> None:
        """Whatever an observer raises, `on_next` returns, the others get the item, and one ERROR line of `rxbus` names it."""
        subject, tried = InlineSubject(), []
        _, recorders = follow(subject, "before")

        def fail(value: object) -> None:
            tried.append(value)
            raise kind("at", value)

        subject.subscribe(fail)
        after = Recorder()
        subject.subscribe(after)
        subject.on_next(1)
        assert [1] == recorders["before"].notes
        assert [1] == after.notes
        assert 1 == len(error_lines(caplog))
        assert kind.__name__ in error_lines(caplog)[0]
        subject.on_next(2)
        subject.on_completed()
        assert [1, 2] == tried
        assert [1, 2, END] == after.notes
        assert 2 == len(error_lines(caplog))

    def test_of_a_subject_cost_the_others_the_item(self, caplog: pytest.LogCaptureFixture) -> None:
        """With a plain `Subject` the error comes out of `on_next` and the observers behind miss the item."""
        subject, tried = Subject[Any](), []
        _, recorders = follow(subject, "before")

        def fail(value: object) -> None:
            tried.append(value)
            raise ValueError(value)

        subject.subscribe(fail)
        after = Recorder()
        subject.subscribe(after)
        for item in (1, 2):
            with pytest.raises(ValueError, match=str(item)):
                subject.on_next(item)
        assert [1, 2] == recorders["before"].notes
        assert [1, 2] == tried
        assert [] == after.notes
        assert [] == error_lines(caplog)

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_at_the_end(self, caplog: pytest.LogCaptureFixture, ending: str) -> None:
        """An observer that raises when it is told of the end is logged, and the others are told."""
        subject, after = InlineSubject(), Recorder()

        def fail(_: object = None) -> None:
            raise RuntimeError("in the callback")

        subject.subscribe(on_error=fail, on_completed=fail)
        subject.subscribe(after)
        ENDINGS[ending](subject)
        assert 1 == len(after.notes)
        assert [True] == ["RuntimeError: in the callback" in line for line in error_lines(caplog)]
        assert [] == subject.observers

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_of_a_subject_at_the_end(self, ending: str) -> None:
        """With a plain `Subject` the observers behind one that raises are never told of the end."""
        subject, after = Subject[Any](), Recorder()

        def fail(_: object = None) -> None:
            raise RuntimeError("in the callback")

        subject.subscribe(on_error=fail, on_completed=fail)
        subject.subscribe(after)
        with pytest.raises(RuntimeError):
            ENDINGS[ending](subject)
        assert [] == after.notes
        assert [] == subject.observers

    def test_without_a_callback_for_errors(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error for an observer without a callback for errors is logged, and the others are told."""
        subject, error, after = InlineSubject(), ValueError("the end"), Recorder()
        subject.subscribe(lambda value: None)
        subject.subscribe(after)
        subject.on_error(error)
        assert [error] == after.notes
        assert [True] == ["ValueError: the end" in line for line in error_lines(caplog)]

    def test_of_a_subject_without_a_callback_for_errors(self) -> None:
        """With a plain `Subject` the error comes out of `on_error`, and the observers behind aren't told."""
        subject, error, after = Subject[Any](), ValueError("the end"), Recorder()
        subject.subscribe(lambda value: None)
        subject.subscribe(after)
        with pytest.raises(ValueError, match="the end"):
            subject.on_error(error)
        assert [] == after.notes

    def test_failing_operator_without_a_callback_for_errors(self, caplog: pytest.LogCaptureFixture) -> None:
        """An operator's error that nobody takes is logged and ends its own chain alone."""
        subject, seen, neighbour = InlineSubject(), [], Recorder()
        subject.pipe(ops.map(lambda value: 1 // value)).subscribe(seen.append)
        subject.subscribe(neighbour)
        for item in (1, 0, 1):
            subject.on_next(item)
        assert [1] == seen
        assert [1, 0, 1] == neighbour.notes
        assert [True] == ["ZeroDivisionError" in line for line in error_lines(caplog)]
        assert 1 == len(subject.observers)

    def test_keep_the_order_of_what_they_published(self, caplog: pytest.LogCaptureFixture) -> None:
        """What an observer published before it raised is delivered like any other item."""
        subject, second = InlineSubject(), Recorder()

        def publish_and_fail(value: int) -> None:
            if value == 1:
                subject.on_next(2)
                raise ValueError(value)

        subject.subscribe(publish_and_fail)
        subject.subscribe(second)
        subject.on_next(1)
        assert [1, 2] == second.notes
        assert 1 == len(error_lines(caplog))

    def test_disposed_target(self, caplog: pytest.LogCaptureFixture) -> None:
        """A disposed subject downstream is an observer that raises: publishing goes on, and each item is logged."""
        source, target, neighbour = InlineSubject(), Subject[Any](), Recorder()
        source.subscribe(target)
        source.subscribe(neighbour)
        target.dispose()
        source.on_next(1)
        source.on_next(2)
        assert [1, 2] == neighbour.notes
        assert [True, True] == ["DisposedException" in line for line in error_lines(caplog)]


class TestVirtualTime:
    """Under a `TestScheduler`."""

    def test_nothing_runs_by_itself(self) -> None:
        """Items and completion wait until the scheduler is started, then all come in order."""
        clock = TestScheduler()
        subject = MailboxSubject[int](scheduler=clock)
        log, _ = follow(subject, "a", "b")
        for item in (1, 2):
            subject.on_next(item)
        subject.on_completed()
        assert [] == log
        clock.start()
        for name in "ab":
            assert [1, 2, END] == [note for who, note in log if who == name]

    def test_delivery_takes_no_virtual_time(self) -> None:
        """An item is delivered at the virtual time at which it was published."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock), clock.create_observer()
        subject.subscribe(recorder)
        for moment in (10.0, 20.0, 20.0, 30.0):
            clock.schedule_absolute(moment, lambda *_: subject.on_next(int(clock.clock)))
        clock.schedule_absolute(40.0, lambda *_: subject.on_completed())
        clock.start()
        assert [on_next(10, 10), on_next(20, 20), on_next(20, 20), on_next(30, 30), on_completed(40)] == recorder.messages

    def test_up_to_a_moment(self) -> None:
        """Advanced to a moment, the clock delivers what was published until then and keeps the rest."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock), Recorder()
        subject.subscribe(recorder)
        for moment in (10.0, 20.0, 30.0):
            clock.schedule_absolute(moment, lambda *_: subject.on_next(int(clock.clock)))
        clock.advance_to(25.0)
        assert [10, 20] == recorder.notes
        clock.start()
        assert [10, 20, 30] == recorder.notes

    def test_timed_operators(self) -> None:
        """Operators that measure time see the items at their virtual times."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[str](scheduler=clock), clock.create_observer()
        subject.pipe(ops.debounce(15.0, scheduler=clock)).subscribe(recorder)
        for moment, item in ((10.0, "a"), (20.0, "b"), (50.0, "c")):
            clock.schedule_absolute(moment, lambda *_, item=item: subject.on_next(item))
        clock.start()
        assert [on_next(35, "b"), on_next(65, "c")] == recorder.messages

    def test_scheduler_of_one_observer(self) -> None:
        """The scheduler given to `subscribe` wins, for that observer alone."""
        clock = TestScheduler()
        subject, waiting, direct = InlineSubject(), Recorder(), Recorder()
        subject.subscribe(waiting, scheduler=clock)
        subject.subscribe(direct)
        subject.on_next(1)
        assert [1] == direct.notes
        assert [] == waiting.notes
        clock.start()
        assert [1] == waiting.notes

    def test_inline_observer_of_a_virtual_subject(self) -> None:
        """An observer with a scheduler of its own doesn't wait for the subject's."""
        clock = TestScheduler()
        subject, waiting, direct = MailboxSubject[int](scheduler=clock), Recorder(), Recorder()
        subject.subscribe(waiting)
        subject.subscribe(direct, scheduler=ImmediateScheduler())
        subject.on_next(1)
        assert [1] == direct.notes
        assert [] == waiting.notes

    def test_subscribed_after_the_item(self) -> None:
        """Who subscribes after an item was published doesn't see it, though it hasn't been delivered to anybody yet."""
        clock = TestScheduler()
        subject, early, late = MailboxSubject[int](scheduler=clock), Recorder(), Recorder()
        subject.subscribe(early)
        subject.on_next(1)
        subject.subscribe(late)
        subject.on_next(2)
        clock.start()
        assert [1, 2] == early.notes
        assert [2] == late.notes

    def test_late_subscriber_doesnt_wait(self) -> None:
        """Who subscribes after the end is told at once, though others still have items queued."""
        clock = TestScheduler()
        subject, early, late = MailboxSubject[int](scheduler=clock), Recorder(), Recorder()
        subject.subscribe(early)
        subject.on_next(1)
        subject.on_completed()
        subject.subscribe(late)
        assert [END] == late.notes
        assert [] == early.notes
        clock.start()
        assert [1, END] == early.notes

    def test_unsubscribing_drops_what_is_queued(self) -> None:
        """Who unsubscribed gets nothing of what it had queued, and the queued items are let go at once."""
        clock = TestScheduler()
        subject, recorder, neighbour, item = MailboxSubject[Any](scheduler=clock), Recorder(), Recorder(), Thing()
        reference = weakref.ref(item)
        subscription = subject.subscribe(recorder)
        subject.on_next(item)
        subject.subscribe(neighbour)
        subject.on_next(2)
        del item
        subscription.dispose()
        gc.collect()
        assert reference() is None
        clock.start()
        assert [] == recorder.notes
        assert [2] == neighbour.notes

    def test_dispose_drops_what_is_queued(self) -> None:
        """After `dispose` of the subject nothing of what was queued is delivered, and the items are let go at once."""
        clock = TestScheduler()
        subject, item = MailboxSubject[Any](scheduler=clock), Thing()
        log, _ = follow(subject, "a", "b")
        reference = weakref.ref(item)
        subject.on_next(item)
        del item
        subject.dispose()
        gc.collect()
        assert reference() is None
        clock.start()
        assert [] == log


class TestEndAfterTheQueue:
    """The end, when items are still queued."""

    def test_completion(self) -> None:
        """Completion arrives after all queued items, and needs no room in a full mailbox."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock, capacity=2, overflow=Overflow.DROP_LATEST), Recorder()
        subject.subscribe(recorder)
        for item in (1, 2):
            subject.on_next(item)
        subject.on_completed()
        assert [] == subject.observers
        clock.start()
        assert [1, 2, END] == recorder.notes

    def test_error(self) -> None:
        """An error arrives after all queued items."""
        clock, error = TestScheduler(), ValueError("the end")
        subject, recorder = MailboxSubject[int](scheduler=clock), Recorder()
        subject.subscribe(recorder)
        for item in (1, 2):
            subject.on_next(item)
        subject.on_error(error)
        clock.start()
        assert [1, 2, error] == recorder.notes

    def test_fail(self) -> None:
        """An error through `Observer.fail` arrives on the scheduler, after all queued items, too."""
        clock, error = TestScheduler(), ValueError("the end")
        subject, recorder = MailboxSubject[int](scheduler=clock), Recorder()
        subject.subscribe(recorder)
        subject.on_next(1)
        assert subject.fail(error) is True
        assert [] == recorder.notes
        clock.start()
        assert [1, error] == recorder.notes

    def test_more_than_one_batch(self) -> None:
        """Completion waits for a queue of any length."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock), Recorder()
        subject.subscribe(recorder)
        for item in range(1_000):
            subject.on_next(item)
        subject.on_completed()
        clock.start()
        assert [*range(1_000), END] == recorder.notes

    def test_unsubscribed_before_it_arrived(self) -> None:
        """Who unsubscribes between the end and its arrival isn't told of it."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock), Recorder()
        subscription = subject.subscribe(recorder)
        subject.on_completed()
        subscription.dispose()
        clock.start()
        assert [] == recorder.notes

    def test_dispose_after_completion(self) -> None:
        """Disposing of a completed subject leaves those their items and completion who have them queued."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock), Recorder()
        subject.subscribe(recorder)
        subject.on_next(1)
        subject.on_completed()
        subject.dispose()
        clock.start()
        assert [1, END] == recorder.notes


SURVIVORS = {
    Overflow.DROP_OLDEST: ([3, 4, 5], [4, 5]),
    Overflow.DROP_LATEST: ([1, 2, 3], [4, 5]),
    Overflow.FAIL: ([1, 2, 3], [4, 5]),
}
"""Of the items 1 to 5, with room for 3: for one that was there from the start, and one that came after 3."""


class TestOverflow:
    """A full mailbox; under a clock that stands still it just fills."""

    @pytest.mark.parametrize("overflow", SURVIVORS, ids=lambda overflow: overflow.name)
    def test_survivors(self, overflow: Overflow) -> None:
        """Each policy keeps exactly its items, in order; a neighbour with room has lost nothing."""
        clock = TestScheduler()
        subject, full, roomy = MailboxSubject[int](scheduler=clock, capacity=3, overflow=overflow), Recorder(), Recorder()
        subject.subscribe(full)
        for item in (1, 2, 3):
            subject.on_next(item)
        subject.subscribe(roomy)
        for item in (4, 5):
            subject.on_next(item)
        subject.on_completed()
        clock.start()
        expected = SURVIVORS[overflow]
        assert [*expected[0], END] == full.notes
        assert [*expected[1], END] == roomy.notes

    @pytest.mark.parametrize("overflow", [*SURVIVORS, Overflow.BLOCK], ids=lambda overflow: overflow.name)
    def test_exactly_full(self, caplog: pytest.LogCaptureFixture, overflow: Overflow) -> None:
        """A mailbox that is just full has lost nothing, and after it was emptied it has its whole room again."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock, capacity=3, overflow=overflow), Recorder()
        subject.subscribe(recorder)
        for start in (0, 3):
            for item in range(start, start + 3):
                subject.on_next(item)
            clock.start()
        assert [0, 1, 2, 3, 4, 5] == recorder.notes
        assert [] == error_lines(caplog)

    @pytest.mark.parametrize("overflow", SURVIVORS, ids=lambda overflow: overflow.name)
    def test_room_for_one(self, overflow: Overflow) -> None:
        """A mailbox of one keeps the last item or the first, as its policy says."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock, capacity=1, overflow=overflow), Recorder()
        subject.subscribe(recorder)
        for item in (1, 2, 3):
            subject.on_next(item)
        clock.start()
        assert [3 if overflow is Overflow.DROP_OLDEST else 1] == recorder.notes

    def test_fail_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Under FAIL the publisher isn't troubled, and each refused item is an ERROR line that names `MailboxFullError`."""
        clock = TestScheduler()
        subject = MailboxSubject[int](scheduler=clock, capacity=3, overflow=Overflow.FAIL)
        subject.subscribe(Recorder())
        for item in range(5):
            subject.on_next(item)
        assert [True, True] == ["MailboxFullError" in line for line in error_lines(caplog)]

    @pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_LATEST], ids=lambda overflow: overflow.name)
    def test_drops_are_no_errors(self, caplog: pytest.LogCaptureFixture, overflow: Overflow) -> None:
        """What a drop policy lets go was asked for: it isn't logged as an error."""
        clock = TestScheduler()
        subject = MailboxSubject[int](scheduler=clock, capacity=1, overflow=overflow)
        subject.subscribe(Recorder())
        for item in range(5):
            subject.on_next(item)
        assert [] == error_lines(caplog)

    def test_dropped_items_are_let_go(self) -> None:
        """An item that DROP_OLDEST pushed out isn't kept."""
        clock, item = TestScheduler(), Thing()
        subject = MailboxSubject[Any](scheduler=clock, capacity=1, overflow=Overflow.DROP_OLDEST)
        subject.subscribe(Recorder())
        reference = weakref.ref(item)
        subject.on_next(item)
        del item
        assert reference() is not None
        subject.on_next(2)
        gc.collect()
        assert reference() is None

    def test_block_never_waits_for_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        """Under BLOCK the thread that alone can empty the mailbox is let in up to twice the capacity, then refused as by FAIL."""
        clock = TestScheduler()
        subject, recorder = MailboxSubject[int](scheduler=clock, capacity=3), Recorder()
        subject.subscribe(recorder)
        for item in range(8):
            subject.on_next(item)
        assert [True, True] == ["MailboxFullError" in line for line in error_lines(caplog)]
        clock.start()
        assert [0, 1, 2, 3, 4, 5] == recorder.notes

    def test_block_waits_for_room(self) -> None:
        """Under BLOCK an item beyond the bound enters, and its publisher goes on once there is room."""
        subject, recorder = MailboxSubject[int](capacity=1), Recorder()
        entered, gate, returned = threading.Event(), threading.Event(), threading.Event()

        def hold(value: int) -> None:
            recorder.on_next(value)
            entered.set()
            gate.wait(LIMIT)

        def publish() -> None:
            subject.on_next(3)
            returned.set()

        subject.subscribe(hold, on_completed=recorder.on_completed)
        subject.on_next(1)
        assert entered.wait(LIMIT)
        subject.on_next(2)
        thread = threading.Thread(target=publish)
        thread.start()
        assert not returned.wait(0.05)
        gate.set()
        assert returned.wait(LIMIT)
        thread.join(LIMIT)
        subject.on_completed()
        assert recorder.ended.wait(LIMIT)
        assert [1, 2, 3, END] == recorder.notes

    def test_block_gives_up_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """After `block_timeout` seconds the publisher goes on; the mailbox refuses at once until an item was taken from it again."""
        subject, recorder = MailboxSubject[int](capacity=1, block_timeout=0.05), Recorder()
        entered = {item: threading.Event() for item in (1, 3, 5)}
        gates = {1: threading.Event(), 5: threading.Event()}

        def hold(value: int) -> None:
            recorder.on_next(value)
            if value in entered:
                entered[value].set()
            if value in gates:
                gates[value].wait(LIMIT)

        subject.subscribe(hold, on_completed=recorder.on_completed)
        for held in (1, 5):
            subject.on_next(held)
            assert entered[held].wait(LIMIT)
            subject.on_next(held + 1)
            start = time.monotonic()
            subject.on_next(held + 2)
            assert time.monotonic() - start >= 0.05
            assert [] == error_lines(caplog)
            subject.on_next(held + 3)
            assert [True] == ["MailboxFullError" in line for line in error_lines(caplog)]
            caplog.clear()
            gates[held].set()
            assert entered[3].wait(LIMIT)
        subject.on_completed()
        assert recorder.ended.wait(LIMIT)
        assert [1, 2, 3, 5, 6, 7, END] == recorder.notes


SCHEDULERS: dict[str, Callable[[], Any]] = {
    "the default pool": lambda: None,
    "WorkerPool": lambda: WorkerPool(2),
    "ThreadPoolScheduler": lambda: ThreadPoolScheduler(4),
    "EventLoopScheduler": lambda: EventLoopScheduler(),
    "NewThreadScheduler": lambda: NewThreadScheduler(),
    "TimeoutScheduler": lambda: TimeoutScheduler(),
    "CurrentThreadScheduler": lambda: CurrentThreadScheduler(),
    "ImmediateScheduler": lambda: ImmediateScheduler(),
}


@pytest.fixture(params=SCHEDULERS)
def scheduler(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each scheduler in turn; its threads are let go at the end."""
    made = SCHEDULERS[request.param]()
    yield made
    if isinstance(made, ThreadPoolScheduler):
        made.executor.shutdown()
    elif isinstance(made, EventLoopScheduler):
        made.dispose()
    elif isinstance(made, WorkerPool):
        made.close()


class TestThreads:
    """With real threads."""

    def test_every_scheduler(self, scheduler: Any) -> None:
        """On any scheduler each observer gets all items in order, then completion."""
        subject = MailboxSubject[int](scheduler=scheduler)
        _, recorders = follow(subject, "a", "b")
        for item in range(300):
            subject.on_next(item)
        subject.on_completed()
        for recorder in recorders.values():
            assert recorder.ended.wait(LIMIT)
            assert [*range(300), END] == recorder.notes

    def test_several_publishers(self, scheduler: Any) -> None:
        """However many threads publish, all observers get all items, each publisher's in order, in one and the same order."""
        subject = MailboxSubject[tuple[int, int]](scheduler=scheduler)
        _, recorders = follow(subject, "a", "b", "c")
        start = threading.Barrier(4)

        def publish(publisher: int) -> None:
            start.wait(LIMIT)
            for number in range(250):
                subject.on_next((publisher, number))

        threads = [threading.Thread(target=publish, args=(publisher,)) for publisher in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        subject.on_completed()
        assert all(recorder.ended.wait(LIMIT) for recorder in recorders.values())
        seen = recorders["a"].notes
        for publisher in range(4):
            assert list(range(250)) == [number for who, number in seen[:-1] if who == publisher]
        assert [END] == seen[1_000:]
        assert seen == recorders["b"].notes
        assert seen == recorders["c"].notes

    def test_one_at_a_time(self) -> None:
        """An observer is never called by two threads at once, though many publish and many could run it."""
        executor = ThreadPoolScheduler(8)
        subject = MailboxSubject[int](scheduler=executor)
        busy, ended = threading.Lock(), threading.Event()
        overlaps: list[int] = []

        def handle(value: int) -> None:
            if not busy.acquire(blocking=False):
                overlaps.append(value)
                return
            for _ in range(200):
                pass
            busy.release()

        subject.subscribe(handle, on_completed=ended.set)
        threads = [threading.Thread(target=lambda: [subject.on_next(item) for item in range(250)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        subject.on_completed()
        assert ended.wait(LIMIT)
        executor.executor.shutdown()
        assert [] == overlaps

    def test_on_other_threads(self) -> None:
        """On the default pool no observer runs on the publisher's thread."""
        subject, threads, ended = MailboxSubject[int](), set(), threading.Event()
        subject.subscribe(lambda value: threads.add(threading.get_ident()), on_completed=ended.set)
        for item in range(100):
            subject.on_next(item)
        subject.on_completed()
        assert ended.wait(LIMIT)
        assert threads
        assert threading.get_ident() not in threads

    def test_hung_observer(self) -> None:
        """An observer that hangs delays neither the publisher nor its neighbours, and finds its items when it goes on."""
        subject, slow, fast = MailboxSubject[int](), Recorder(), Recorder()
        gate = threading.Event()

        def hold(value: int) -> None:
            gate.wait(LIMIT)
            slow.on_next(value)

        subject.subscribe(hold, slow.on_error, slow.on_completed)
        subject.subscribe(fast)
        for item in range(100):
            subject.on_next(item)
        subject.on_completed()
        assert fast.ended.wait(LIMIT)
        assert [] == slow.notes
        gate.set()
        assert slow.ended.wait(LIMIT)
        assert [*range(100), END] == slow.notes
        assert [*range(100), END] == fast.notes

    def test_raising_observer(self, caplog: pytest.LogCaptureFixture) -> None:
        """On the pool, too, an observer that raises is logged each time and costs nobody anything."""
        subject, fine, ended = MailboxSubject[int](), Recorder(), threading.Event()

        def fail(value: int) -> None:
            raise ValueError(value)

        subject.subscribe(fail, on_completed=ended.set)
        subject.subscribe(fine)
        for item in range(3):
            subject.on_next(item)
        subject.on_completed()
        assert ended.wait(LIMIT)
        assert fine.ended.wait(LIMIT)
        assert [0, 1, 2, END] == fine.notes
        assert [True, True, True] == [f"ValueError: {item}" in line for item, line in enumerate(error_lines(caplog))]

    def test_unsubscribing_from_inside(self) -> None:
        """Who unsubscribes while it handles an item gets none of those that were queued behind it."""
        subject, seen, neighbour = MailboxSubject[int](), [], Recorder()
        gate = threading.Event()
        own: list[abc.DisposableBase] = []

        def leave(value: int) -> None:
            gate.wait(LIMIT)
            seen.append(value)
            own[0].dispose()
            neighbour.ended.set()

        own.append(subject.subscribe(leave))
        for item in (1, 2, 3):
            subject.on_next(item)
        gate.set()
        assert neighbour.ended.wait(LIMIT)
        neighbour.ended.clear()
        subject.subscribe(neighbour)
        subject.on_next(4)
        subject.on_completed()
        assert neighbour.ended.wait(LIMIT)
        assert [4, END] == neighbour.notes
        assert [1] == seen


LOCKING: dict[str, Callable[[Observable[Any]], Observable[Any]]] = {
    "buffer_with_time_or_count": lambda source: source.pipe(ops.buffer_with_time_or_count(1_000.0, 1, scheduler=TestScheduler())),
    "window_with_time_or_count": lambda source: source.pipe(
        ops.window_with_time_or_count(1_000.0, 1, scheduler=TestScheduler()), ops.flat_map(lambda window: window.pipe(ops.to_list()))
    ),
    "merge_all": lambda source: source.pipe(ops.merge_all()),
    "switch_latest": lambda source: source.pipe(ops.switch_latest()),
    "flat_map": lambda source: source.pipe(ops.flat_map(lambda item: item)),
    "merge": lambda source: source.pipe(ops.merge(reactivex.never())),
    "zip": lambda source: source.pipe(ops.zip(reactivex.repeat_value(0, 10))),
    "combine_latest": lambda source: source.pipe(ops.combine_latest(reactivex.just(0))),
    "with_latest_from": lambda source: source.pipe(ops.with_latest_from(reactivex.just(0))),
    "group_by": lambda source: source.pipe(ops.group_by(lambda item: 0), ops.flat_map(lambda group: group)),
}
"""Chains that begin at a subject; some of RxPY's operators call their observer while they hold their source's ``lock``."""


class TestNoLockHeld:
    """No lock that a publisher needs is held while an observer runs."""

    @pytest.mark.parametrize("chain", LOCKING)
    def test_behind_operators_that_lock_their_source(self, chain: str) -> None:
        """While an observer behind the operator hangs, others can subscribe, unsubscribe, publish, and get what is published."""
        subject, recorder, item = MailboxSubject[Any](), Recorder(), reactivex.just(1)
        entered, gate = threading.Event(), threading.Event()

        def hold(value: object) -> None:
            entered.set()
            gate.wait(LIMIT)

        def use() -> None:
            subject.subscribe().dispose()
            subject.subscribe(recorder)
            subject.on_next(item)
            subject.on_completed()

        LOCKING[chain](subject).subscribe(hold)
        subject.on_next(item)
        assert entered.wait(LIMIT)
        thread = threading.Thread(target=use)
        thread.start()
        served = recorder.ended.wait(3.0)
        gate.set()
        thread.join(LIMIT)
        assert served
        assert [item, END] == recorder.notes


class TestArguments:
    """What it is made with."""

    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("capacity", 0, ValueError),
            ("capacity", -1, ValueError),
            ("capacity", True, TypeError),
            ("capacity", 1.5, TypeError),
            ("capacity", "10", TypeError),
            ("capacity", None, TypeError),
            ("overflow", "block", TypeError),
            ("overflow", None, TypeError),
            ("scheduler", object(), TypeError),
            ("scheduler", TestScheduler, TypeError),
            ("scheduler", "immediate", TypeError),
            ("block_timeout", -1, ValueError),
            ("block_timeout", float("nan"), ValueError),
            ("block_timeout", float("inf"), ValueError),
            ("block_timeout", True, TypeError),
            ("block_timeout", "1", TypeError),
            ("block_timeout", None, TypeError),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else repr(value)[:12],
    )
    def test_bad_ones(self, name: str, value: object, error: type[Exception]) -> None:
        """A bad argument raises where it is given, and the message begins with its name."""
        with pytest.raises(error, match=f"^{name} must"):
            MailboxSubject(**{name: value})

    @pytest.mark.parametrize(
        "arguments",
        [
            {"capacity": 1},
            {"block_timeout": 0},
            {"block_timeout": 0.5},
            {"scheduler": None},
            *({"overflow": overflow} for overflow in Overflow),
        ],
        ids=repr,
    )
    def test_good_ones(self, arguments: dict[str, Any]) -> None:
        """The least and the common values are taken."""
        subject, recorder = MailboxSubject[int](**{"scheduler": ImmediateScheduler(), **arguments}), Recorder()
        subject.subscribe(recorder)
        subject.on_next(1)
        subject.on_completed()
        assert recorder.ended.wait(LIMIT)
        assert [1, END] == recorder.notes

    def test_by_name_only(self) -> None:
        """Arguments are given by name."""
        with pytest.raises(TypeError, match="positional"):
            MailboxSubject(ImmediateScheduler())  # type: ignore[misc]

    def test_scheduler_of_one_observer(self) -> None:
        """A bad scheduler raises at `subscribe`, and nobody was subscribed."""
        subject = InlineSubject()
        with pytest.raises(TypeError, match=r"^scheduler must"):
            subject.subscribe(lambda value: None, scheduler=object())  # type: ignore[arg-type]
        assert [] == subject.observers
