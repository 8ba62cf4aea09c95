"""An event bus for agents, built on RxPY: each topic is a `Subject`, each subscriber has a mailbox and runs on a pool."""

from . import operators
from .bus import EventBus
from .dead_letters import DeadLetters
from .errors import (
    BusClosedError,
    BusError,
    DrainTimeoutError,
    HandlerError,
    MailboxFullError,
    MissingExtraError,
    NoRespondersError,
    PayloadTypeError,
    RequestFailedError,
    RequestTimeoutError,
    TopicNameError,
)
from .event import Delivery, Event, current
from .graph import BusGraph
from .instrument import Instrument
from .mailbox import Overflow
from .outcome import CloseReport, DeadLetter, Reason, Receipt
from .recovery import Breaker, Retry
from .request import REPLY, Request
from .statistics import BusStatistics, SubscriptionStatistics, TopicStatistics
from .subject import MailboxSubject
from .subscription import Subscription
from .topic import Topic
from .workers import WorkerPool

__all__ = [
    "REPLY",
    "Breaker",
    "BusClosedError",
    "BusError",
    "BusGraph",
    "BusStatistics",
    "CloseReport",
    "DeadLetter",
    "DeadLetters",
    "Delivery",
    "DrainTimeoutError",
    "Event",
    "EventBus",
    "HandlerError",
    "Instrument",
    "MailboxFullError",
    "MailboxSubject",
    "MissingExtraError",
    "NoRespondersError",
    "Overflow",
    "PayloadTypeError",
    "Reason",
    "Receipt",
    "Request",
    "RequestFailedError",
    "RequestTimeoutError",
    "Retry",
    "Subscription",
    "SubscriptionStatistics",
    "Topic",
    "TopicNameError",
    "TopicStatistics",
    "WorkerPool",
    "current",
    "operators",
]
