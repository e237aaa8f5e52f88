"""What the daemon has to do with others: who made the tokens, and the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import random
from secrets import token_hex
from typing import Any, Protocol

from pushd.asked import AskingToPublish
from pushd.attendance import Telling
from pushd.config.settings import Config
from pushd.door import Asking
from pushd.gate import Tokens
from pushd.hooks.asking import Asking as HooksAsking
from pushd.hooks.post import Poster
from pushd.hooks.signing import Signer
from pushd.hooks.telling import Telling as HooksTelling
from pushd.tokens.fetch import HttpsFetch
from pushd.tokens.tokens import Tokens as KeyedTokens

__all__ = ["ALONE", "Outside", "reach"]


class AskingOfAll(Asking, AskingToPublish, Protocol):
    """What asks the application about everything that it wants to be asked about."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What there is of it."""

    tokens: Tokens | None = None
    """What knows whom a token stands for, if there is a key."""

    asking: AskingOfAll | None = None
    """What asks the application, if it wants to be asked."""

    telling: Telling | None = None
    """What tells the application, if it wants to be told."""


ALONE = Outside()
"""There is nobody."""


def reach(config: Config, reactor: Any, *, seconds: Callable[[], float], now: Callable[[], float]) -> Outside:
    """Make what `config` says; raise `StartFailed` if a key or a secret is no good."""
    tokens = None
    if config.keys:
        fetch = HttpsFetch(reactor)
        tokens = KeyedTokens(config.keys, leeway_s=config.auth.leeway_s, now=now, seconds=seconds, fetch=fetch)
    return _with_application(config, tokens, reactor, seconds=seconds, now=now)


def _with_application(
    config: Config, tokens: Tokens | None, reactor: Any, *, seconds: Callable[[], float], now: Callable[[], float]
) -> Outside:
    hooks = config.hooks
    if not (hooks.before_connect or hooks.before_subscribe or hooks.before_publish or hooks.after):
        return Outside(tokens)
    post = Poster(reactor, Signer.of(hooks), timeout_s=hooks.timeout_s, now=now)
    prefix, numbers = token_hex(8), count(1)
    asking = HooksAsking(
        hooks,
        post,
        max_event_bytes=config.limits.event_size_bytes,
        seconds=seconds,
        now=now,
        new_id=lambda: f"{prefix}-q{next(numbers)}",
    )
    telling = HooksTelling(
        hooks,
        post,
        call_later=reactor.callLater,
        seconds=reactor.seconds,
        now=now,
        random=random,
        token=prefix,
    )
    return Outside(tokens, asking, telling if hooks.after else None)
