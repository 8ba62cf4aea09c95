"""Which topics and subscriptions a bus has, and their books.

``lock`` guards all of it. It is taken before a topic's lock, never after, and no user code runs under it. A topic that is
made while a pattern is being subscribed to gets that subscription from one side or the other, because both happen under
this lock. Publishers don't take it: `topics` is read by one dictionary look-up.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from .errors import BusClosedError
from .event import Event
from .graph import BusGraph, Row, build_graph
from .group import Group, MemberStrand
from .intake import Fed
from .mailbox import Mailbox, Overflow
from .outcome import Reason
from .pattern import Trie, check_name, is_wild
from .statistics import BusStatistics, PoolStatistics, SubscriptionStatistics, TopicStatistics
from .strand import Strand
from .subscription import Subscription
from .topic import Topic, TopicHost

PRUNE_EVERY = 256
"""Forgotten topics between two rounds of pruning."""
PAST_KEPT = 1000
"""Disposed subscriptions whose counters stay in the statistics."""


class Host(TopicHost, Protocol):
    """The bus."""

    def _new_topic(self, name: str, /) -> Topic[Any]: ...


class _Sums:
    """What became of a topic's deliveries through subscriptions that are gone."""

    __slots__ = ("dropped", "failed", "handled")

    def __init__(self) -> None:
        self.handled = self.failed = self.dropped = 0


class Membership(NamedTuple):
    """The group that a subscription asks for, and how its mailbox should be."""

    name: str
    pattern: str
    mailbox: Callable[[], Mailbox]
    capacity: int | None
    """If the caller said so."""
    overflow: Overflow | None
    """If the caller said so."""


class Registry:
    """The topics and subscriptions of one bus."""

    def __init__(self, name: str, host: Host) -> None:
        self.lock = threading.RLock()
        self.name = name
        self.topics: dict[str, Topic[Any]] = {}
        self.living: dict[str, Subscription] = {}
        self.sealed = False
        """Set by the beginning of a close: topics that are made now are open to handlers only."""
        self.closed = False
        """Set by the end of a close: nothing new comes in."""
        self.orphaned = False
        """It is the copy of a bus in the child of a fork, without its threads."""
        self._host = host
        self._names: Trie[str] = Trie()
        self._patterns: Trie[Fed] = Trie()
        self._groups: dict[tuple[str, str], Group] = {}
        """By pattern and name, those that topics feed."""
        self._leaving: dict[Subscription, None] = {}
        self._past: OrderedDict[str, SubscriptionStatistics] = OrderedDict()
        self._sums: dict[str, _Sums] = {}
        self._forgotten = 0
        self._suffixes: dict[str, int] = {}

    # -- topics

    def topic(self, name: str) -> Topic[Any]:
        """The topic of that name, made on first use.

        Raises: `TopicNameError`, or `BusClosedError` if it would have to be made on a closed bus.
        """
        found = self.topics.get(name) if isinstance(name, str) else None  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        if found is not None:
            return found
        check_name(name)
        with self.lock:
            found = self.topics.get(name)
            if found is None:
                if self.closed:
                    raise self.closed_error()
                found = self._host._new_topic(name)
                found._shut = self.sealed
                for fed in self._patterns.matching(name):
                    found._attach(fed, fed._intake.attach(name))
                self._names.add(name, name)
                self.topics[name] = found
            return found

    def orphan(self) -> None:
        """In the child of a fork: refuses everything, with new locks in the place of those that may be held for ever."""
        self.lock = threading.RLock()
        self.sealed = self.closed = self.orphaned = True
        for topic in self.topics.values():
            topic._guard = threading.RLock()
            topic._shut = True
        self.living.clear()
        self._leaving.clear()

    def closed_error(self) -> BusClosedError:
        """For what is asked of a closed bus."""
        if self.orphaned:
            return BusClosedError(f"bus {self.name!r} was made before a fork: make another one in the child", self.name)
        return BusClosedError(f"bus {self.name!r} is closed", self.name)

    def forget(self, name: str) -> None:
        """Ends a topic and takes it out; its own subscriptions end after what they have queued."""
        with self.lock:
            topic = self.topics.pop(name, None)
            if topic is None:
                return
            self._names.remove(name, name)
            self._sums.pop(name, None)
            fed = topic._stop()
            self._forgotten += 1
            if self._forgotten % PRUNE_EVERY == 0:
                self._prune()
            for one in fed:
                if one._inlet is None:
                    one._intake.forget(name)
                elif isinstance(one, Group):
                    self._groups.pop((one.pattern, one.name), None)  # who asks for it now founds another
        for one in fed:
            if one._inlet is not None:
                one._strand.finish(None)

    def _prune(self) -> None:
        """Lets go of forgotten names that subscriptions were seen to feed."""
        for subscription in self.subscriptions():
            for name in [name for name in list(subscription._feeds) if name not in self.topics]:
                subscription._feeds.pop(name, None)

    # -- subscriptions

    def free_name(self, base: str) -> str:
        """That name, or with a number behind it if a living subscription has it. The lock is held."""
        if base not in self.living:
            return base
        number = self._suffixes.get(base, 2)
        while f"{base}#{number}" in self.living:
            number += 1
        self._suffixes[base] = number + 1
        return f"{base}#{number}"

    def attach(
        self, make: Callable[[str, Group | None], Subscription], name: str | None, base: str, membership: Membership | None = None
    ) -> Subscription:
        """Makes a subscription under its name, or one made from ``base``, and lets its topics feed it, or its group.

        Raises: `ValueError` for a name that is taken, or for a membership that doesn't agree with its group, `BusClosedError`,
        and whatever making it raises; then nothing happened.
        """
        with self.lock:
            if self.sealed:
                raise self.closed_error()
            if name is not None and name in self.living:
                raise ValueError(f"name {name!r} is taken by a living subscription of bus {self.name!r}")
            group = None if membership is None else self._group(membership)
            subscription = make(name if name is not None else self.free_name(base), group)
            try:
                self.living[subscription.name] = subscription  # first: whoever is fed can be found, and disposed of
                self._admit(subscription, group)
            except BaseException:
                self.detach(subscription)
                self._leaving.pop(subscription, None)
                raise
        if group is not None:
            subscription._strand.wake()  # not under the lock: on an inline scheduler this handles events
        return subscription

    def _admit(self, subscription: Subscription, group: Group | None) -> None:
        """Lets its topics feed it, or makes it a member. The lock is held."""
        if group is None:
            self._feed(subscription)
            return
        assert isinstance(subscription._strand, MemberStrand)
        group.join(subscription._strand)
        if self._groups.setdefault((group.pattern, group.name), group) is group and len(group.members) == 1:
            self._feed(group)

    def _group(self, membership: Membership) -> Group:
        """The group that somebody wants to join; a new one isn't fed yet. The lock is held."""
        found = self._groups.get((membership.pattern, membership.name))
        if found is None:
            return Group(membership.name, membership.pattern, membership.mailbox())
        for argument, wanted, has in (
            ("capacity", membership.capacity, found.mailbox.capacity),
            ("overflow", membership.overflow, found.mailbox.overflow),
        ):
            if wanted is not None and wanted != has:
                raise ValueError(
                    f"{argument} of group {found.name!r} on {found.pattern!r} is {has}, got {wanted}: its members share a mailbox"
                )
        return found

    def _feed(self, fed: Fed) -> None:
        """Lets the topics feed it. The lock is held."""
        pattern = fed.pattern
        if is_wild(pattern):
            self._patterns.add(pattern, fed)
            for topic in self._names.covered(pattern):
                self.topics[topic]._attach(fed, fed._intake.attach(topic))
        else:
            self.topic(pattern)._attach(fed, fed._intake.attach(pattern))

    def _unfeed(self, fed: Fed) -> None:
        """Takes it out of all topics. The lock is held."""
        if is_wild(fed.pattern):
            self._patterns.remove(fed.pattern, fed)
        for name, _ in fed._intake.by_topic():
            topic = self.topics.get(name)
            if topic is not None:
                topic._detach(fed)

    def detach(self, subscription: Subscription) -> None:
        """Takes it out of all topics, or of its group; when this returned, none of them feeds it."""
        with self.lock:
            group, strand = subscription._group, subscription._strand
            if group is None:
                self._unfeed(subscription)
            elif isinstance(strand, MemberStrand):
                if list(group.members) == [strand]:
                    # before it leaves: what came in with no member there would be nobody's
                    self._unfeed(group)
                    if self._groups.get((group.pattern, group.name)) is group:
                        del self._groups[group.pattern, group.name]
                group.leave(strand)
            if self.living.get(subscription.name) is subscription:
                del self.living[subscription.name]
                self._leaving[subscription] = None

    def retire(self, subscription: Subscription) -> bool:
        """Its last event has ended: only its counters stay. Whether that hadn't been so before."""
        with self.lock:
            if subscription not in self._leaving:
                return False
            group = subscription._group
            if group is not None:
                group.staying -= 1
            if subscription._envelopes and (group is None or not group.staying):
                self._keep_sums(subscription)
            self._past.pop(subscription.name, None)
            self._past[subscription.name] = subscription.statistics()
            if len(self._past) > PAST_KEPT:
                self._past.popitem(last=False)
            del self._leaving[subscription]
            return True

    def _keep_sums(self, subscription: Subscription) -> None:
        for name, inlet in subscription._intake.by_topic():
            if inlet.source is not None and self.topics.get(name) is inlet.source:
                sums = self._sums.setdefault(name, _Sums())
                sums.handled += inlet.handled
                sums.failed += inlet.failed
                sums.dropped += inlet.dropped

    def seal(self) -> None:
        """Closes all topics to publishers that aren't handlers; what they were just offering is offered when this returns."""
        with self.lock:
            self.sealed = True
            topics = list(self.topics.values())
        for topic in topics:
            topic._seal()

    def adopt(self, subscription: Subscription, base: str) -> bool:
        """Takes in a subscription that no topic feeds: a mailbox in the middle of a chain. False if it is too late."""
        with self.lock:
            if self.closed or subscription.is_disposed:
                return False
            subscription._name = self.free_name(base)
            for inlet in subscription._intake.inlets():
                inlet.name = subscription._name
            self.living[subscription._name] = subscription
            return True

    def subscriptions(self) -> list[Subscription]:
        """The living ones, and those whose last event has not ended yet."""
        with self.lock:
            return [*self.living.values(), *self._leaving]

    def strands_for(self, name: str) -> list[list[Strand]]:
        """For each mailbox that an event of that topic would reach now, those who take from it."""
        with self.lock:
            topic = self.topics.get(name)
            if topic is not None:
                return topic._strands()
            return [fed._strand.strands() for fed in self._patterns.matching(name)]

    def resend(self, name: str, event: Event[Any]) -> bool:
        """Puts an event before one subscription alone, or before its group; whether there is such a one."""
        with self.lock:
            topic, subscription = self.topics.get(event._topic), self.living.get(name)
            fed = subscription if subscription is None or subscription._group is None else subscription._group
        return topic is not None and fed is not None and topic._offer_to(fed, (event, copy_context(), self._host._now()))

    # -- snapshots

    def statistics(self, pool: PoolStatistics | None, letters: Mapping[Reason, int], late: int) -> BusStatistics:
        """The counters of everything."""
        with self.lock:
            subscriptions = dict(self._past)
            sums = self._sums_of([*self._leaving, *self.living.values()], subscriptions)
            topics = {name: self._topic_statistics(topic, sums.get(name, [0, 0, 0])) for name, topic in self.topics.items()}
            return BusStatistics(self.name, MappingProxyType(topics), MappingProxyType(subscriptions), pool, letters, late)

    def _sums_of(self, present: Iterable[Subscription], subscriptions: dict[str, SubscriptionStatistics]) -> dict[str, list[int]]:
        """How many events of each topic these have handled, failed and dropped; their own statistics are entered on the way."""
        sums: dict[str, list[int]] = {}
        counted: set[Group | None] = set()
        for subscription in present:
            subscriptions.pop(subscription.name, None)  # a past one of that name gives way, and the order is that of birth
            subscriptions[subscription.name] = subscription.statistics()
            group = subscription._group
            if subscription._envelopes and group not in counted:
                if group is not None:
                    counted.add(group)
                for name, inlet in subscription._intake.by_topic():
                    if inlet.source is None or self.topics.get(name) is not inlet.source:
                        continue  # of a forgotten topic that had this name
                    one = sums.setdefault(name, [0, 0, 0])
                    one[0] += inlet.handled
                    one[1] += inlet.failed
                    one[2] += inlet.dropped
        return sums

    def _topic_statistics(self, topic: Topic[Any], present: Iterable[int]) -> TopicStatistics:
        past = self._sums.get(topic.name) or _Sums()
        handled, failed, dropped = present
        return TopicStatistics(
            name=topic.name,
            published=topic._published,
            subscribers=sum(len(strands) for strands in topic._strands()),
            handled=handled + past.handled,
            failed=failed + past.failed + topic._upstream_errors,
            dropped=dropped + past.dropped,
        )

    def graph(self) -> BusGraph:
        """Who feeds whom."""
        with self.lock:
            return build_graph(self.name, self.topics, self._rows(), self.statistics(None, {}, 0))

    def _rows(self) -> list[Row]:
        return [
            Row(
                s.name,
                s.pattern,
                _fed(s),
                s._target,
                [n for n in list(s._feeds) if n in self.topics],
                None if s._group is None else s._group.name,
            )
            for s in self.living.values()
            if s._envelopes
        ]


def _fed(subscription: Subscription) -> dict[str, int | None]:
    """The topics that feed it, with how many events each did; in a group that is known of all members together only."""
    alone = subscription._group is None
    return {name: inlet.offered if alone else None for name, inlet in subscription._intake.by_topic() if inlet.source is not None}
