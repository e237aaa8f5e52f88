"""External services of the daemon: token issuers, and the application with its webhooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import random
from secrets import token_hex
from typing import Any

from pushd.auth import (
    HttpsFetch,
    Signer,
    Tokens,
    WebhookAuthorizer,
    WebhookClient,
    WebhookNotifier,
    new_questions,
)
from pushd.bus import Counters
from pushd.config import Config
from pushd.daemon.file_limits import plan

__all__ = ["ALONE", "Commit", "IntegrationLoader", "Integrations", "alone"]


@dataclass(frozen=True, slots=True)
class Integrations:
    """The configured external services; None: not configured."""

    tokens: Tokens | None = None
    """Verifies tokens, if there is a key."""

    authorizer: WebhookAuthorizer | None = None
    """Authorization webhooks, if the application uses webhooks."""

    notifier: WebhookNotifier | None = None
    """Notifications, if ``[hooks] after`` is set."""


ALONE = Integrations()
"""No external services."""


Commit = Callable[[], None]
"""Applies a configuration that was read and checked."""


def alone(config: Config) -> tuple[Integrations, Commit]:
    """Return no external services, whatever the configuration."""
    return ALONE, lambda: None


class IntegrationLoader:
    """Makes the external services of a configuration, at the start and at each reload."""

    def __init__(
        self,
        reactor: Any,
        *,
        seconds: Callable[[], float],
        now: Callable[[], float],
        counters: Counters | None = None,
    ) -> None:
        """Connect with `reactor`; `seconds` is a monotonic clock, `now` returns the time in seconds since 1970.

        Outcomes of webhooks are counted in `counters`.
        """
        self._reactor = reactor
        self._outcomes = (Counters() if counters is None else counters).hooks
        self._seconds = seconds
        self._now = now
        self._config: Config | None = None
        self._integrations = ALONE
        self._tokens: Tokens | None = None
        self._post: WebhookClient | None = None
        self._questions = new_questions(1, 100)
        """Pending webhooks to every application configured so far: those posted before a reload still count."""

    def __call__(self, config: Config) -> tuple[Integrations, Commit]:
        """Return the services of `config` and a call that applies them; raise `StartFailed` on an invalid key.

        Fetched keys are kept, and so are the webhooks, unless their options changed.
        """
        tokens = None
        if config.keys:
            tokens = Tokens(
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
        post, integrations = None, Integrations(tokens)
        if signer is not None:
            post = self._post if self._is_same_application(config) else None
            if post is None:
                post = WebhookClient(self._reactor, signer, timeout_s=hooks.timeout_s, now=self._now)
                authorizer, notifier = self._application(config, post)
                integrations = Integrations(tokens, authorizer, notifier)
            else:
                integrations = Integrations(tokens, self._integrations.authorizer, self._integrations.notifier)

        def commit() -> None:
            self._config, self._integrations, self._tokens, self._post = config, integrations, tokens, post
            self._questions.limit(plan(config).questions, config.limits.share_percent)
            if integrations.notifier is not None:
                integrations.notifier.limit(config.limits.share_percent)
            if post is not None and signer is not None:
                post.sign_by(signer)

        return integrations, commit

    def _is_same_application(self, config: Config) -> bool:
        before = self._config
        return (
            before is not None
            and before.hooks == config.hooks
            and before.limits.event_size_bytes == config.limits.event_size_bytes
        )

    def _application(self, config: Config, post: WebhookClient) -> tuple[WebhookAuthorizer, WebhookNotifier | None]:
        hooks, prefix, numbers = config.hooks, token_hex(8), count(1)
        authorizer = WebhookAuthorizer(
            hooks,
            post,
            max_event_bytes=config.limits.event_size_bytes,
            seconds=self._seconds,
            now=self._now,
            new_id=lambda: f"{prefix}-q{next(numbers)}",
            questions=self._questions,
            outcomes=self._outcomes,
        )
        notifier = WebhookNotifier(
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
        return authorizer, notifier if hooks.after else None
