"""The daemon's integrations under control of a test: tokens, authorization webhooks and notifications."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from pushd.auth.tokens.authenticator import Tokens
from pushd.auth.webhooks.authorizer import WebhookAuthorizer
from pushd.auth.webhooks.notifier import WebhookNotifier
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.event import Draft
from pushd.bus.grants import EVERYTHING, Grants, Identity
from pushd.bus.patterns import Pattern
from pushd.errors import Refused, Unauthorized

__all__ = ["Answers", "Ask", "Later", "Notes", "Registry", "a_user"]


def a_user(
    name: str | None, *, payload: object = None, expires_at: float | None = None, subscribe: str = "**"
) -> Identity:
    """Make somebody who may publish to everything, and subscribe to one pattern."""
    grants = Grants.of(["publish"], subscribe=[Pattern.parse(subscribe)], origin="the token")
    return Identity(grants, name, payload, expires_at)


class Registry(Tokens):
    """The known tokens: ``boss`` may do everything."""

    def __init__(self, identities: Mapping[str, Identity] | None = None) -> None:
        self.identities = {"boss": Identity(EVERYTHING, "boss"), **(identities or {})}
        """They, by their tokens; any other token that begins with ``user-`` stands for the user of that name."""

    def identify(self, token: str) -> Identity:
        """Answer it."""
        identity = self.identities.get(token)
        if identity is None and token.startswith("user-"):
            identity = a_user(token)
        if identity is None:
            raise Unauthorized("nobody knows this token", is_token_wrong=True)
        return identity


class Later:
    """What is decided by one who has not decided yet."""


@dataclass
class Ask:
    """One question."""

    kind: str
    """``connect``, ``subscribe`` or ``publish``."""

    caller: ClientInfo
    """Of whom."""

    identity: Identity
    """Who that was when it was asked."""

    what: Any = None
    """The channel, or the draft."""

    since: str | None = None
    """From where it wants to subscribe."""

    answered: Deferred[Any] = field(default_factory=Deferred)
    """To be called back with what is decided, if that is later."""


@dataclass
class Answers(WebhookAuthorizer):
    """The authorization webhooks"""

    decide: Callable[[Ask], object] = lambda ask: None
    """What is decided: None leaves it as it is, an error is raised, `Later` waits for `Ask.answered`."""

    asks_connect: bool = False
    asks_subscribe: bool = False
    asks_publish: bool = False
    asked: list[Ask] = field(default_factory=list)
    """What was asked."""

    in_flight: int = 0
    """How many wait for an answer."""

    async def before_connect(self, caller: ClientInfo) -> Identity:
        """Return who it is."""
        identity: Identity | None = await self._decided(Ask("connect", caller, caller.identity))
        return caller.identity if identity is None else identity

    async def before_subscribe(self, caller: ClientInfo, channel: str, since: str) -> None:
        """Return whether it may."""
        await self._decided(Ask("subscribe", caller, caller.identity, channel, since))

    async def before_publish(self, caller: ClientInfo, draft: Draft) -> Draft:
        """Return what is published."""
        changed: Draft | None = await self._decided(Ask("publish", caller, caller.identity, draft))
        return draft if changed is None else changed

    async def _decided(self, ask: Ask) -> Any:
        self.asked.append(ask)
        decided = self.decide(ask)
        if decided is Later:
            self.in_flight += 1
            try:
                decided = await ask.answered
            finally:
                self.in_flight -= 1
        if isinstance(decided, Exception):
            raise decided
        return decided


def deny(refused: Refused) -> Callable[[Ask], object]:
    """Refuse everything."""
    return lambda ask: refused


class Notes(WebhookNotifier):
    """The notifications, which are recorded."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        """What has happened, to which connection by its number, and more."""

    def of(self, number: int) -> list[tuple[Any, ...]]:
        """Return what was said of one connection, without its number."""
        return [(event, *more) for event, who, *more in self.said if who == number]

    def events(self, channel: str) -> list[str]:
        """Return how a channel was occupied and vacated."""
        return [event for event, *what in self.said if event in ("occupied", "vacated") and what == [channel]]

    def connected(self, caller: ClientInfo) -> None:
        """See `WebhookNotifier`."""
        self.said.append(("connect", caller.number))

    def disconnected(self, caller: ClientInfo, reason: str) -> None:
        """See `WebhookNotifier`."""
        self.said.append(("disconnect", caller.number, reason))

    def subscribed(self, caller: ClientInfo, channel: str) -> None:
        """See `WebhookNotifier`."""
        self.said.append(("subscribe", caller.number, channel))

    def unsubscribed(self, caller: ClientInfo, channel: str) -> None:
        """See `WebhookNotifier`."""
        self.said.append(("unsubscribe", caller.number, channel))

    def occupied(self, channel: str, by: ClientInfo | None = None) -> None:
        """See `WebhookNotifier`."""
        self.said.append(("occupied", channel))

    def vacated(self, channel: str, by: ClientInfo | None = None) -> None:
        """See `WebhookNotifier`."""
        self.said.append(("vacated", channel))

    async def close(self, timeout_s: float) -> None:
        """See `WebhookNotifier`."""
        self.said.append(("close",))
