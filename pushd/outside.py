"""What the daemon has to do with others: who made the tokens, and the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pushd.asked import AskingToPublish
from pushd.attendance import Telling
from pushd.config.settings import Config
from pushd.door import Asking
from pushd.gate import Tokens
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
    return Outside(tokens)
