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
        "A place to listen at. NAME stands for it in the log: 1 to 32 of the characters a-z, 0-9, _ and -. "
        "Without any such section there are two, http and https, that only this machine can reach; as soon as "
        "there is one, those two are gone.",
        options_of(Listener),
        "NAME",
        LISTENERS,
    ),
    Section("site", "What the daemon serves besides channels.", options_of(Site)),
    Section(
        "http2",
        "What is different over HTTP/2, which listeners with TLS speak to clients that do.",
        options_of(Http2),
    ),
    Section(
        "push",
        "What goes with the page at PATH, which is written as in a URL and begins with /. Over HTTP/2 it is pushed "
        "to clients that take pushes, once for each connection; the others get 103 Early Hints and Link headers. "
        "So does whatever a resource names itself in a header Link with rel=preload, unless it says nopush.",
        options_of(PushList),
        "PATH",
        {"/": {"resources": "/style.css, /app.js"}},
    ),
    Section(
        "channels",
        "What is kept of every channel, so that a client that comes back gets what it has missed, what becomes of "
        "one that is too slow, and who is told who is there.",
        options_of(ChannelSettings),
    ),
    Section(
        "channels",
        "The same for the channels whose name PATTERN matches. In it, * stands for one segment and ** for any "
        "number of them; segments are separated by /, . or : characters. Where several sections match, they "
        "apply in the order of the file, and later ones win. An option that is not said here stays as it is "
        "without this section.",
        tuple(replace(it, default=None, doc=f"As in [channels]. {it.doc}") for it in options_of(ChannelSettings)),
        "PATTERN",
        _OVERRIDES,
    ),
    Section(
        "limits", "How much the daemon takes from its clients, and how long it waits for them.", options_of(Limits)
    ),
    Section("auth", "Who may do what.", options_of(Auth)),
    Section(
        "key",
        "A key that tokens (JWT) are checked with. NAME stands for it in the log and in the command that makes "
        "tokens: 1 to 32 of the characters a-z, 0-9, _ and -. Just one of secret, secret_file, public_key_file and "
        "jwks_url must be said.",
        options_of(Key),
        "NAME",
        {"app": {"algorithm": "HS256", "secret_file": "/etc/pushd/app.secret"}},
    ),
    Section(
        "proxies", "The reverse proxies in front of the daemon, which say where clients are.", options_of(Proxies)
    ),
    Section(
        "hooks",
        "The application is asked whether clients may do something, and told what they have done, by POST requests "
        "with JSON; docs/hooks.rst says more. Empty: it is not.",
        options_of(Hooks),
    ),
    Section("log", "What is logged.", options_of(Log)),
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
