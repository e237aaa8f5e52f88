"""The option table: the sections of the file in order, with the options that their dataclasses declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pushd.config.access import Auth, Key, Proxies
from pushd.config.channel_rules import ChannelSettings
from pushd.config.hooks import Hooks
from pushd.config.limits import Limits
from pushd.config.option import Section, options_of
from pushd.config.settings import Config, Http2, Listener, Log, PushList, Site

__all__ = ["FAMILIES", "LISTENERS", "SECTIONS", "SINGLE", "sections_of"]

LISTENERS: Mapping[str, Mapping[str, str]] = {
    "http": {"endpoint": "tcp:8080:interface=127.0.0.1"},
    "https": {"endpoint": "tcp:8443:interface=127.0.0.1", "tls": "yes"},
}
"""The default listeners, used if the file has none: options by name."""

_OVERRIDES = {
    "logs/**": {
        "history_size": "1000",
        "history_bytes": "64MiB",
        "history_age": "1d",
        "on_overflow": "close",
        "presence": "operator",
    },
    "prices/*": {
        "history_size": "1",
        "history_bytes": "64MiB",
        "history_age": "1h",
        "on_overflow": "latest",
        "presence": "operator",
    },
}
"""The examples of overrides in the sample file: options by pattern."""

SECTIONS = (
    Section("pushd", "The daemon as a whole.", options_of(Config)),
    Section(
        "listen",
        "A listener. NAME identifies it in the log: 1 to 32 of the characters a-z, 0-9, _ and -. Without any "
        "such section there are two listeners, http and https, on the loopback interface; any such section "
        "replaces both.",
        options_of(Listener),
        "NAME",
        LISTENERS,
    ),
    Section("site", "What pushd serves besides channels.", options_of(Site)),
    Section(
        "http2",
        "Options of HTTP/2, which listeners with TLS offer.",
        options_of(Http2),
    ),
    Section(
        "push",
        "The resources of the page at PATH, which is written as in a URL and begins with /. Over HTTP/2 they are "
        "pushed to clients that accept pushes, once per connection; other clients get 103 Early Hints and Link "
        "headers. The same applies to resources in a Link header of the response with rel=preload and without "
        "nopush.",
        options_of(PushList),
        "PATH",
        {"/": {"resources": "/style.css, /app.js"}},
    ),
    Section(
        "channels",
        "The history, overflow and presence of all channels.",
        options_of(ChannelSettings),
    ),
    Section(
        "channels",
        "The same for the channels whose name matches PATTERN. In it, * matches one segment and ** any number of "
        "them; segments are separated by /, . or : characters. If several sections match, they apply in the "
        "order of the file, and later ones have precedence. Options that are not set here keep their value from "
        "the other sections.",
        tuple(replace(it, default=None, doc=f"As in [channels]. {it.doc}") for it in options_of(ChannelSettings)),
        "PATTERN",
        _OVERRIDES,
    ),
    Section("limits", "Limits and timeouts of clients.", options_of(Limits)),
    Section("auth", "Authentication and default rights.", options_of(Auth)),
    Section(
        "key",
        "A key to verify tokens (JWT). NAME identifies it in the log and in the command that makes tokens: 1 to "
        "32 of the characters a-z, 0-9, _ and -. Exactly one of secret, secret_file, public_key_file and "
        "jwks_url is required.",
        options_of(Key),
        "NAME",
        {"app": {"algorithm": "HS256", "secret_file": "/etc/pushd/app.secret"}},
    ),
    Section(
        "proxies",
        "The reverse proxies in front of pushd, which send the addresses of clients.",
        options_of(Proxies),
    ),
    Section(
        "hooks",
        "Webhooks: POST requests with JSON that ask the application to authorize actions of clients, and notify "
        "it of them; see docs/hooks.rst. Empty: no such webhook.",
        options_of(Hooks),
    ),
    Section("log", "The log.", options_of(Log)),
)
"""The whole option table, in the order of the reference page."""

SINGLE = {section.name: section for section in SECTIONS if section.parameter is None}
"""The sections without a parameter, by name."""

FAMILIES = {section.name: section for section in SECTIONS if section.parameter is not None}
"""The families of sections, by name."""


def sections_of(config: Config) -> list[tuple[str, Section, Mapping[str, Any]]]:
    """Return every section of a complete file: header, table entry, and values by the names of the fields."""
    channels = config.channels
    return [
        _single("pushd", config),
        *(_member("listen", it.name, it) for it in config.listeners),
        _single("site", config.site),
        _single("http2", config.http2),
        *(_member("push", it.path, it) for it in config.pushes),
        _single("channels", channels.usual),
        *((f"channels:{it.pattern.text}", FAMILIES["channels"], it.changes) for it in channels.overrides),
        _single("limits", config.limits),
        _single("auth", config.auth),
        *(_member("key", it.name, it) for it in config.keys),
        _single("proxies", config.proxies),
        _single("hooks", config.hooks),
        _single("log", config.log),
    ]


def _single(name: str, settings: object) -> tuple[str, Section, Mapping[str, Any]]:
    return name, SINGLE[name], _values(SINGLE[name], settings)


def _member(name: str, parameter: str, settings: object) -> tuple[str, Section, Mapping[str, Any]]:
    return f"{name}:{parameter}", FAMILIES[name], _values(FAMILIES[name], settings)


def _values(section: Section, settings: object) -> Mapping[str, Any]:
    return {it.field: getattr(settings, it.field) for it in section.options}
