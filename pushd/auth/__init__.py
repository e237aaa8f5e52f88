"""Authentication and authorization: tokens, webhooks and rate limits."""

from pushd.auth.approval import ApprovedPublisher, Waiting
from pushd.auth.command_rates import CommandRates
from pushd.auth.rate_limits import RateLimitedPublisher, take
from pushd.auth.tokens.authenticator import Tokens
from pushd.auth.tokens.fetch import HttpsFetch
from pushd.auth.tokens.mint import TokenRequest, choose_key, mint
from pushd.auth.webhooks.authorizer import WebhookAuthorizer, new_questions
from pushd.auth.webhooks.client import WebhookClient
from pushd.auth.webhooks.notifier import WebhookNotifier
from pushd.auth.webhooks.signing import Signer

__all__ = [
    "ApprovedPublisher",
    "CommandRates",
    "HttpsFetch",
    "RateLimitedPublisher",
    "Signer",
    "TokenRequest",
    "Tokens",
    "Waiting",
    "WebhookAuthorizer",
    "WebhookClient",
    "WebhookNotifier",
    "choose_key",
    "mint",
    "new_questions",
    "take",
]
