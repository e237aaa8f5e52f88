"""Sessions: the connected subscribers, and admission to them."""

from pushd.sessions.admission import Admission
from pushd.sessions.interfaces import ConnectedSubscriber, Connection, SessionLimits
from pushd.sessions.long_work import unless_done
from pushd.sessions.presence import Presence
from pushd.sessions.registry import SessionRegistry
from pushd.sessions.session import Session
from pushd.sessions.subscriber_session import SubscriberSession

__all__ = [
    "Admission",
    "ConnectedSubscriber",
    "Connection",
    "Presence",
    "Session",
    "SessionLimits",
    "SessionRegistry",
    "SubscriberSession",
    "unless_done",
]
