"""What a test says about events that could not be handled."""

from __future__ import annotations

from ..arguments import describe, visible
from ..bus import EventBus
from ..outcome import DeadLetter
from ..recovery import error_text

SHOWN = 20
LONGEST = 1000
"""Characters of an error, or of where it came from; what is beyond is counted."""


def assert_no_dead_letters(bus: EventBus) -> None:
    """Fails if the bus holds dead letters, and says which.

    Raises: `AssertionError` with the topic, subscription, reason and error of each; `TypeError` for what is no bus.
    """
    if not isinstance(bus, EventBus):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise TypeError(f"bus must be an EventBus, got {describe(bus)}")
    letters = list(bus.dead_letters)
    if letters:
        count = f"{len(letters)} dead {'letter' if len(letters) == 1 else 'letters'}"
        more = [f"  and {len(letters) - SHOWN} more"] if len(letters) > SHOWN else []
        raise AssertionError("\n".join([f"bus {bus.name!r} has {count}:", *map(_shown, letters[:SHOWN]), *more]))


def _shown(letter: DeadLetter) -> str:
    tried = f"{letter.attempts} {'attempt' if letter.attempts == 1 else 'attempts'}"
    line = f"  topic {letter.event.topic!r}, subscription {letter.subscription!r}, {letter.reason.value} after {tried}: "
    frames = [row.strip() for row in letter.traceback.splitlines() if row.startswith('  File "')]
    where = f"\n    {_cut(visible(frames[-1]))}" if frames else ""
    return f"{line}{_cut(error_text(letter.error))}{where}\n    {describe(letter.event)}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… and {len(text) - LONGEST:,} more characters"
