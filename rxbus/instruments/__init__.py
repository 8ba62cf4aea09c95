"""Instruments to attach to a bus: ``EventBus(instruments=[Metrics(), LoggingInstrument()])``.

A wing of the house: nothing below imports it.
"""

from ..instrument import Instrument
from .logs import LoggingInstrument
from .metrics import Metrics
from .otel import OpenTelemetryInstrument

__all__ = ["Instrument", "LoggingInstrument", "Metrics", "OpenTelemetryInstrument"]
