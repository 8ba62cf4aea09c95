"""Ctrl-C in the middle of an inline run."""

from __future__ import annotations

import pytest
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler

from rxbus import EventBus
from rxbus.mailbox import Mailbox

from .racing import check_books


class TestInterrupt:
    """What rxbus was doing on the calling thread is done again."""

    @pytest.mark.parametrize("scheduler", [ImmediateScheduler(), CurrentThreadScheduler()], ids=["immediate", "trampoline"])
    def test_what_was_taken_goes_back(self, scheduler, monkeypatch):
        """An event that was taken, but not handed to its handler yet, is handled with the next one, in order and once."""
        interrupts = [KeyboardInterrupt()]

        def taken(mailbox):
            if interrupts:
                raise interrupts.pop()

        monkeypatch.setattr(Mailbox, "taken", taken)
        with EventBus(scheduler=scheduler) as bus:
            seen = []
            one = bus.subscribe("t", lambda e: seen.append(e.payload))
            one._strand.mailbox.watched = True  # has the run call what is broken here
            with pytest.raises(KeyboardInterrupt):
                bus.publish("t", 1)
            bus.publish("t", 2)
            assert [1, 2] == seen
            check_books(bus)
