"""What the daemon has to do with others: who made the tokens, and the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import random
from secrets import token_hex
from typing import Any, Protocol

from pushd.auth import AskingToPublish, HttpsFetch, Signer, WebhookClient, new_questions
from pushd.auth import Tokens as KeyedTokens
from pushd.auth import WebhookAuthorizer as HooksAsking
from pushd.auth import WebhookNotifier as HooksTelling
from pushd.bus import Counters
from pushd.config import Config
from pushd.daemon.file_limits import plan
from pushd.server import Tokens
from pushd.sessions import Asking, Telling

__all__ = ["ALONE", "Commit", "IntegrationLoader", "Integrations", "alone"]


class AskingOfAll(Asking, AskingToPublish, Protocol):
    """What asks the application about everything that it wants to be asked about."""


@dataclass(frozen=True, slots=True)
class Integrations:
    """What there is of it."""

    tokens: Tokens | None = None
    """What knows whom a token stands for, if there is a key."""

    asking: AskingOfAll | None = None
    """What asks the application, if it wants to be asked."""

    telling: Telling | None = None
    """What tells the application, if it wants to be told."""


ALONE = Integrations()
"""There is nobody."""


Commit = Callable[[], None]
"""Has what was read hold from now on."""


def alone(config: Config) -> tuple[Integrations, Commit]:
    """Answer that there is nobody, whatever the configuration says."""
    return ALONE, lambda: None


class IntegrationLoader:
    """Makes what there is of it, as the configuration says, and again when that has changed."""

    def __init__(
        self,
        reactor: Any,
        *,
        seconds: Callable[[], float],
        now: Callable[[], float],
        figures: Counters | None = None,
    ) -> None:
        """Reach out by `reactor`; `seconds` is a clock that never jumps, `now` the time in seconds since 1970.

        What comes of it is counted in `figures`.
        """
        self._reactor = reactor
        self._outcomes = (Counters() if figures is None else figures).hooks
        self._seconds = seconds
        self._now = now
        self._config: Config | None = None
        self._outside = ALONE
        self._tokens: KeyedTokens | None = None
        self._post: WebhookClient | None = None
        self._questions = new_questions(1, 100)
        """Those to every application that was configured: what was asked before a reload still counts."""

    def __call__(self, config: Config) -> tuple[Integrations, Commit]:
        """Make what `config` says, and what has it hold; raise `StartFailed` if a key or a secret is no good.

        Keys that are fetched are kept, and so are those who ask and tell, unless something about them is different.
        """
        tokens = None
        if config.keys:
            tokens = KeyedTokens(
                config.keys,
                leeway_s=config.auth.leeway_s,
                now=self._now,
                seconds=self._seconds,
                fetch=HttpsFetch(self._reactor),
                before=self._tokens,
            )
        hooks = config.hooks
        has_hooks = bool(hooks.before_connect or hooks.before_subscribe or hooks.before_publish or hooks.after)
        signer = Signer.of(hooks) if has_hooks else None
        post, outside = None, Integrations(tokens)
        if signer is not None:
            post = self._post if self._is_same_application(config) else None
            if post is None:
                post = WebhookClient(self._reactor, signer, timeout_s=hooks.timeout_s, now=self._now)
                asking, telling = self._application(config, post)
                outside = Integrations(tokens, asking, telling)
            else:
                outside = Integrations(tokens, self._outside.asking, self._outside.telling)

        def commit() -> None:
            self._config, self._outside, self._tokens, self._post = config, outside, tokens, post
            self._questions.limit(plan(config).questions, config.limits.share_percent)
            if isinstance(outside.telling, HooksTelling):
                outside.telling.limit(config.limits.share_percent)
            if post is not None and signer is not None:
                post.sign_by(signer)

        return outside, commit

    def _is_same_application(self, config: Config) -> bool:
        before = self._config
        return (
            before is not None
            and before.hooks == config.hooks
            and before.limits.event_size_bytes == config.limits.event_size_bytes
        )

    def _application(self, config: Config, post: WebhookClient) -> tuple[AskingOfAll, Telling | None]:
        hooks, prefix, numbers = config.hooks, token_hex(8), count(1)
        asking = HooksAsking(
            hooks,
            post,
            max_event_bytes=config.limits.event_size_bytes,
            seconds=self._seconds,
            now=self._now,
            new_id=lambda: f"{prefix}-q{next(numbers)}",
            questions=self._questions,
            outcomes=self._outcomes,
        )
        telling = HooksTelling(
            hooks,
            post,
            call_later=self._reactor.callLater,
            seconds=self._reactor.seconds,
            now=self._now,
            random=random,
            token=prefix,
            share_percent=config.limits.share_percent,
            outcomes=self._outcomes,
        )
        return asking, telling if hooks.after else None
