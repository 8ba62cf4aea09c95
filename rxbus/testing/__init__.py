"""Tools for testing agents: a bus on virtual time, recordings, marble diagrams, faults and interleavings on purpose.

A wing of the house: nothing below imports it. `plugin`, the pytest plugin, is imported in every test run of everybody who has rxbus
installed; so what is here is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..marbles import Marbles, Notification
    from ..recording import Recording, record
    from .fault import Fault
    from .injection import Faults, faults
    from .interleaving import Interleaving, InterleavingError
    from .letters import assert_no_dead_letters
    from .sources import from_marbles
    from .virtual import VirtualBus

__all__ = [
    "Fault",
    "Faults",
    "Interleaving",
    "InterleavingError",
    "Marbles",
    "Notification",
    "Recording",
    "VirtualBus",
    "assert_no_dead_letters",
    "faults",
    "from_marbles",
    "record",
]

_ROOMS = {
    "..marbles": ("Marbles", "Notification"),
    "..recording": ("Recording", "record"),
    ".fault": ("Fault",),
    ".injection": ("Faults", "faults"),
    ".interleaving": ("Interleaving", "InterleavingError"),
    ".letters": ("assert_no_dead_letters",),
    ".sources": ("from_marbles",),
    ".virtual": ("VirtualBus",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(room, __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
