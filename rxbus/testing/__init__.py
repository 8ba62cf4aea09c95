"""Tools for testing agents: a bus on virtual time, recordings, marble diagrams.

A wing of the house: nothing below imports it.
"""

from ..marbles import Marbles, Notification
from ..recording import Recording, record
from .sources import from_marbles
from .virtual import VirtualBus

__all__ = ["Marbles", "Notification", "Recording", "VirtualBus", "from_marbles", "record"]
