"""Sessions: the connected subscribers, and admission to them."""

from pushd.sessions.admission import Admission, SubscribeAuthorizer
from pushd.sessions.closed_connection import GONE
from pushd.sessions.interfaces import ConnectedSubscriber, Connection, SessionLimits
from pushd.sessions.long_work import unless_done
from pushd.sessions.presence import Notifier, Presence
from pushd.sessions.registry import SessionRegistry
from pushd.sessions.session import Session

__all__ = [
    "GONE",
    "Admission",
    "ConnectedSubscriber",
    "Connection",
    "Notifier",
    "Presence",
    "Session",
    "SessionLimits",
    "SessionRegistry",
    "SubscribeAuthorizer",
    "unless_done",
]
