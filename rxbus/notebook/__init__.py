"""Looking at a bus in a notebook: recorded traffic as a marble diagram, and a table that updates itself.

A wing of the house: nothing below imports it. IPython is imported when `live` needs it.
"""

from .traffic import marbles
from .watch import Live, live

__all__ = ["Live", "live", "marbles"]
