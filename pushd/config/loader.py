"""Conversion of the configuration from an ini file to frozen dataclasses and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pushd.bus import Pattern
from pushd.config.access import Auth, Key, Proxies
from pushd.config.addresses import parse_endpoint, parse_path
from pushd.config.channel_rules import ChannelOverride, ChannelRules, ChannelSettings
from pushd.config.hooks import Hooks
from pushd.config.ini import decode_ini, read_ini
from pushd.config.limits import Limits
from pushd.config.option import Option, Section
from pushd.config.options import FAMILIES, LISTENERS, SINGLE, sections_of
from pushd.config.settings import Config, Http2, Listener, Log, PushList, Site
from pushd.config.units import show_size
from pushd.errors import BadRequest, ConfigError, one_line, suggestion

__all__ = ["default", "parse", "parse_bytes", "print_config", "state_directory"]

_NAME = re.compile(r"[a-z0-9_-]{1,32}")
_UNSAID = (
    "and [auth] does not say what anybody may do: wanted anonymous = publish, subscribe to let everyone in, or "
    "anonymous = (empty) for no one"
)

_Sections = Mapping[str, Mapping[str, str]]


def parse(text: str, filename: str) -> Config:
    """Parse the text of a file; `filename` is used in messages.

    Any error raises `ConfigError`: one line with the file, section, option, value and the expected form.
    """
    try:
        return _config(read_ini(text))
    except ConfigError as error:
        raise ConfigError(one_line(f"{filename}: {error}")) from None


def parse_bytes(data: bytes, filename: str) -> Config:
    """Parse the content of a file as `parse` does; it must be UTF-8."""
    try:
        text = decode_ini(data)
    except ConfigError as error:
        raise ConfigError(one_line(f"{filename}: {error}")) from None
    return parse(text, filename)


def default() -> Config:
    """Return the configuration of an empty file."""
    return parse("", "the defaults")


def state_directory(config: Config, environ: Mapping[str, str]) -> str:
    """Return the path of the state directory; raise `ConfigError` if no option or environment variable sets it.

    ``STATE_DIRECTORY`` may be a list separated by colons (systemd.exec(5)); the first item is used. A relative
    ``XDG_STATE_HOME`` is ignored (XDG Base Directory Specification, "Basics").
    """
    if config.state_directory is not None:
        return config.state_directory
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    xdg_home = environ.get("XDG_STATE_HOME", "")
    if xdg_home.startswith("/"):
        return f"{xdg_home.rstrip('/')}/pushd"
    home = environ.get("HOME", "")
    if home:
        return f"{home.rstrip('/')}/.local/state/pushd"
    raise ConfigError(
        "[pushd] state_directory is empty, and so are STATE_DIRECTORY, XDG_STATE_HOME and HOME: wanted one of them"
    )


def print_config(config: Config) -> str:
    """Return a file with every option, which `parse` reads as an equal configuration except for secrets.

    Secrets are replaced by a comment.
    """
    return "\n".join(_print_section(*section) for section in sections_of(config))


def _print_section(header: str, section: Section, values: Mapping[str, Any]) -> str:
    lines = [f"[{header}]"]
    for option in section.options:
        value = values.get(option.field)
        if value is not None and option.kind.is_secret:
            lines.append(f"# {option.name} is not shown")
        elif value is not None or option.default is not None:
            lines.append(f"{option.name} = {option.kind.show(value)}".rstrip())
    return "\n".join(lines) + "\n"


def _config(sections: _Sections) -> Config:
    for header, said in sections.items():
        _check_names(header, said)
    listeners = tuple(_listeners(sections))
    proxies = Proxies(**_read("proxies", sections))
    _check_introduced(listeners, proxies)
    if "anonymous" not in sections.get("auth", {}):
        _check_local(listeners, proxies)
    return Config(
        **_read("pushd", sections),
        listeners=listeners,
        site=Site(**_read("site", sections)),
        http2=Http2(**_read("http2", sections)),
        pushes=tuple(_pushes(sections)),
        channels=ChannelRules(ChannelSettings(**_read("channels", sections)), tuple(_overrides(sections))),
        limits=_limits(sections),
        auth=Auth(**_read("auth", sections)),
        keys=tuple(_keys(sections)),
        proxies=proxies,
        hooks=_hooks(sections),
        log=Log(**_read("log", sections)),
    )


def _check_names(header: str, said: Mapping[str, str]) -> None:
    """Raise `ConfigError` unless the section and its options exist."""
    section = _table(header)
    if section is None:
        known = SINGLE | FAMILIES if ":" in header else FAMILIES | SINGLE
        headers = {name: f"[{section.header}]" for name, section in known.items()}
        hint = suggestion(header.partition(":")[0], headers)
        raise ConfigError(f"[{_short(header)}]: there is no such section: {hint}")
    names = {option.name: option.name for option in section.options}
    for name, text in said.items():
        if name not in names:
            raise ConfigError(f"{_place(header, name, text)}: there is no such option: {suggestion(name, names)}")


def _table(header: str) -> Section | None:
    """Return the entry of a section in the option table, or None."""
    name, colon, _ = header.partition(":")
    return (FAMILIES if colon else SINGLE).get(name)


def _family(name: str, sections: _Sections) -> Iterator[tuple[str, str]]:
    """Return the header and the parameter of each section of a family."""
    for header in sections:
        family, colon, parameter = header.partition(":")
        if colon and family == name:
            yield header, parameter


def _read(header: str, sections: _Sections) -> dict[str, Any]:
    """Return the values of the options in a section, by the names of the fields."""
    section = _table(header)
    assert section is not None
    said = sections.get(header, {})
    return {it.field: _value(header, it, said[it.name]) for it in section.options if it.name in said}


def _value(header: str, option: Option, text: str) -> Any:
    """Parse the value of an option; raise `ConfigError` if it is invalid."""
    try:
        return option.kind.parse(text)
    except ValueError as error:
        part, shown = (text, "...") if option.kind.is_secret else (str(error), text)
        but = f", not {_short(part)!r}" if part != text else ""
        raise ConfigError(f"{_place(header, option.name, shown)}: wanted {option.kind.form}{but}") from None


def _listeners(sections: _Sections) -> Iterator[Listener]:
    """Return the listeners of the file, or the default listeners if it has none."""
    family = list(_family("listen", sections))
    if not family:
        sections = {f"listen:{name}": said for name, said in LISTENERS.items()}
        family = list(_family("listen", sections))
    for header, name in family:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"[{_short(header)}]: wanted a name of 1 to 32 of the characters a-z, 0-9, _ and -")
        if "endpoint" not in sections[header]:
            raise ConfigError(f"[{header}] endpoint is not said: wanted one such as tcp:8080:interface=127.0.0.1")
        listener = Listener(name, **_read(header, sections))
        _check_listener(header, listener)
        yield listener


def _check_listener(header: str, listener: Listener) -> None:
    """Raise `ConfigError` if the options of a listener conflict."""
    if parse_endpoint(listener.endpoint).type == "ssl":
        place = _place(header, "endpoint", listener.endpoint)
        raise ConfigError(f"{place}: wanted a tcp: endpoint with tls = yes, certificate and key instead of ssl:")
    files = {"certificate": listener.certificate, "key": listener.key}
    said = [_place(header, name, path) for name, path in files.items() if path is not None]
    missing = [name for name, path in files.items() if path is None]
    if said and not listener.tls:
        raise ConfigError(f"{said[0]}: wanted tls = yes with it")
    if said and missing:
        raise ConfigError(f"{said[0]}: wanted {missing[0]} with it")
    if listener.client_ca is not None and not listener.tls:
        raise ConfigError(f"{_place(header, 'client_ca', listener.client_ca)}: wanted tls = yes with it")


def _check_introduced(listeners: Iterable[Listener], proxies: Proxies) -> None:
    """Raise `ConfigError` if a listener requires the PROXY protocol, and no proxy is trusted."""
    for listener in listeners:
        if listener.proxy_protocol and not proxies.trusted:
            place = _place(f"listen:{listener.name}", "proxy_protocol", "yes")
            raise ConfigError(f"{place}: wanted the addresses of the proxies with it, in [proxies] trusted")


def _check_local(listeners: Iterable[Listener], proxies: Proxies) -> None:
    """Raise `ConfigError` if the default of ``anonymous`` would apply to clients on other machines."""
    for listener in listeners:
        if listener.serves != "operations" and not parse_endpoint(listener.endpoint).is_local:
            place = _place(f"listen:{listener.name}", "endpoint", listener.endpoint)
            raise ConfigError(f"{place}: this is open to other machines, {_UNSAID}")
    if proxies.trusted:
        place = _place("proxies", "trusted", ", ".join(proxies.trusted))
        raise ConfigError(f"{place}: others come through a proxy, {_UNSAID}")


def _overrides(sections: _Sections) -> Iterator[ChannelOverride]:
    for header, text in _family("channels", sections):
        try:
            pattern = Pattern.parse(text)
        except BadRequest as error:
            raise ConfigError(f"[{_short(header)}]: wanted a channel or a pattern: {error.detail}") from None
        yield ChannelOverride(pattern, _read(header, sections))


def _pushes(sections: _Sections) -> Iterator[PushList]:
    for header, path in _family("push", sections):
        try:
            parse_path(path)
        except ValueError:
            raise ConfigError(f"[{_short(header)}]: wanted a path such as / or /index.html") from None
        if "resources" not in sections[header]:
            raise ConfigError(f"[{header}] resources is not said: wanted paths such as /style.css, /app.js")
        yield PushList(path, **_read(header, sections))


def _limits(sections: _Sections) -> Limits:
    limits = Limits(**_read("limits", sections))
    if limits.batch_size_bytes < limits.event_size_bytes:
        place = _place("limits", "batch_size", show_size(limits.batch_size_bytes))
        raise ConfigError(f"{place}: wanted at least event_size, which is {show_size(limits.event_size_bytes)}")
    least = -(-limits.batch_size_bytes * 100 // limits.share_percent)
    if limits.bodies_bytes < least:
        place, share = _place("limits", "bodies", show_size(limits.bodies_bytes)), limits.share_percent
        raise ConfigError(
            f"{place}: wanted at least {show_size(least)}, so that share, {share}%, holds one batch_size of "
            f"{show_size(limits.batch_size_bytes)}"
        )
    return limits


def _keys(sections: _Sections) -> Iterator[Key]:
    for header, name in _family("key", sections):
        if not _NAME.fullmatch(name):
            raise ConfigError(f"[{_short(header)}]: wanted a name of 1 to 32 of the characters a-z, 0-9, _ and -")
        if "algorithm" not in sections[header]:
            raise ConfigError(f"[{header}] algorithm is not said: wanted one such as HS256 or ES256")
        key = Key(name, **_read(header, sections))
        _check_key(header, key)
        yield key


def _check_key(header: str, key: Key) -> None:
    """Raise `ConfigError` if the options of a key conflict."""
    is_shared = key.algorithm.startswith("HS")
    known = ("secret", "secret_file") if is_shared else ("public_key_file", "jwks_url")
    said = [
        name for name in ("secret", "secret_file", "public_key_file", "jwks_url") if getattr(key, name) is not None
    ]
    if len(said) != 1 or said[0] not in known:
        raise ConfigError(
            f"[{header}] says {' and '.join(said) or 'nothing to check tokens with'}: "
            f"wanted just one of {' and '.join(known)} with {key.algorithm}"
        )
    least = int(key.algorithm[2:]) // 8 if is_shared else 0
    if key.secret is not None and len(key.secret.encode()) < least:
        raise ConfigError(
            f"[{header}] secret: wanted at least {least} bytes with {key.algorithm} (RFC 7518, section 3.2)"
        )


def _hooks(sections: _Sections) -> Hooks:
    hooks = Hooks(**_read("hooks", sections))
    urls = {
        name for name in ("before_connect", "before_subscribe", "before_publish", "after") if getattr(hooks, name)
    }
    secrets = [name for name in ("secret", "secret_file") if getattr(hooks, name) is not None]
    if urls and len(secrets) != 1:
        raise ConfigError(
            f"[hooks] says {' and '.join(secrets) or 'no secret'}: wanted just one of secret and secret_file, "
            "which requests are signed with"
        )
    return hooks


def _place(header: str, name: str, text: str) -> str:
    return f"[{_short(header)}] {_short(name)} = {_short(text)}".rstrip()


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."
