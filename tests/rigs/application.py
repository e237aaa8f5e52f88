"""An application in memory, which hooks ask and tell without HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from pushd.auth.webhooks.answers import Answer, NoAnswer
from pushd.bus.clientinfo import ClientInfo, Transport
from pushd.bus.grants import ChannelScope, Grants, Identity
from pushd.bus.patterns import Pattern
from pushd.config.hooks import Hooks
from pushd.server.net.addresses import ClientAddress

__all__ = ["NO_HOOKS", "SECRET", "Application", "Posted", "answer", "caller", "hooks"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""The secret of the examples of Standard Webhooks."""

NO_HOOKS = Hooks(
    before_connect=None,
    before_subscribe=None,
    before_publish=None,
    after=None,
    after_events=frozenset({"connect", "disconnect", "subscribe", "unsubscribe", "occupied", "vacated"}),
    secret=SECRET,
    secret_file=None,
    timeout_s=2,
    questions=1000,
    when_down="deny",
    retry_for_s=300,
    queue=10_000,
    breaker_failures=3,
    breaker_pause_s=5,
)
"""The application is neither asked nor told."""


def hooks(**settings: Any) -> Hooks:
    """Return `NO_HOOKS` with other `settings`."""
    return replace(NO_HOOKS, **settings)


def answer(body: object = None, status: int = 200, retry_after_s: float | None = None) -> Answer:
    """Return what an application sends back: JSON, or bytes as they are, or nothing."""
    encoded = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, encoded, retry_after_s)


def caller(user: str | None = "ada", payload: object = None, *, expires_at: float | None = None) -> ClientInfo:
    """Return a subscriber that may do what is below ``a``."""
    reach = ChannelScope([Pattern.parse("a/**")])
    grants = Grants(reach, reach, origin="a token", wants_token=True)
    made = ClientInfo(Identity(grants, user, payload, expires_at), ClientAddress("192.0.2.7", "192.0.2.7:1"))
    made.number, made.prefix = 1, "c"
    made.transport = Transport("websocket")
    return made


@dataclass
class Posted:
    """One request."""

    url: str
    """Where to."""

    id: str
    """Its ``webhook-id``."""

    body: Any
    """Its JSON."""

    answered: Deferred[Answer]
    """What comes back."""


class Application:
    """What an application is to a hook: a `pushd.auth.webhooks.answers.Post`."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []
        """What was sent to it."""
        self.react: Callable[[Posted], Answer | str | None] = lambda posted: answer()
        """Answers a request: by an answer, or by text as the reason why there is none, or by None, not yet."""

    def __call__(self, url: str, message_id: str, body: bytes) -> Awaitable[Answer]:
        """Take a request."""
        posted = Posted(url, message_id, json.loads(body), Deferred())
        self.posted.append(posted)
        reaction = self.react(posted)
        if reaction is None:
            return posted.answered
        return fail(NoAnswer(reaction)) if isinstance(reaction, str) else succeed(reaction)

    def always(self, reaction: Answer | str | None) -> None:
        """Reply to everything from now on by `reaction`."""
        self.react = lambda posted: reaction

    @property
    def bodies(self) -> list[Any]:
        """The JSON of every request."""
        return [posted.body for posted in self.posted]
