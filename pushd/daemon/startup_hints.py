"""The startup lines of the log: the listeners, and commands to try that work with the configuration."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pushd.bus import Grants
from pushd.config import Config, Key, Listener
from pushd.server import Port, wants_certificate

__all__ = ["greeting"]

_SUBSCRIBED = "clock"
_PUBLISHED = "news"
_BEARER = '-H "Authorization: Bearer $TOKEN" '


def greeting(
    config: Config, ports: Sequence[Port], filename: str | None, *, twistd: str = "twistd", suggests: bool = True
) -> list[str]:
    """Return the startup lines for the open `ports`, in the order of the listeners of `config`.

    `filename` is the file that `config` was read from, or None, and `twistd` the command that starts pushd. Without
    `suggests`, the lines only name the listeners.
    """
    places = list(zip(config.listeners, ports, strict=True))
    operations = [port.url for listener, port in places if listener.serves == "operations"]
    places = [place for place in places if place[0].serves != "operations"]
    lines = list[str]()
    if places:
        lines.append(f"pushd listens at {' and '.join(port.url for _, port in places)}")
        if suggests:
            lines += _suggestions(config, places, filename, twistd)
    if operations:
        lines.append(f"operations listen at {' and '.join(operations)}: /metrics, /readyz and /healthz")
    return lines


def _suggestions(
    config: Config, places: Sequence[tuple[Listener, Port]], filename: str | None, twistd: str
) -> list[str]:
    listener, port = _easiest(places)
    grants = _grants(config, listener)
    has_page = config.site.root is None and config.site.demo
    missing, commands = list[str](), list[str]()

    def suggest(right: str, is_granted: bool, options: str, path: str) -> None:
        """Suggest a command, with a token if anonymous clients lack the grant."""
        if not is_granted:
            missing.append(right)
        if is_granted or config.keys:
            commands.append(port.curl(options if is_granted else _BEARER + options, path))

    if has_page:
        suggest("subscribe", grants.subscribe.has(_SUBSCRIBED), "-N", f"/sse?channel={_SUBSCRIBED}")
    suggest("publish", grants.publish.has(_PUBLISHED), "-d 'hello'", f"/channels/{_PUBLISHED}")
    if missing and filename is not None:
        commands[:0] = _token_commands(config.keys, missing, filename, twistd)
    lines = list[str]()
    if has_page:
        lines.append(f"open {port.url}/ in a browser{', or try:' if commands else ''}")
    lines += [f"    {command}" for command in commands]
    if missing and not config.keys:
        lines.append(
            f"nobody may {' or '.join(missing)} by curl: for that, give the right in [auth], or have a [key:NAME] "
            "for tokens (docs/tokens.rst)"
        )
    return lines


def _easiest(places: Sequence[tuple[Listener, Port]]) -> tuple[Listener, Port]:
    """Return the first listener without PROXY protocol and required certificate, else the first one."""
    easy = (place for place in places if not place[0].proxy_protocol and not wants_certificate(place[0]))
    return next(easy, places[0])


def _grants(config: Config, listener: Listener) -> Grants:
    """Return the grants of a client without a token at this listener."""
    auth = config.auth
    if wants_certificate(listener):
        return Grants.of(auth.certified, auth.certified_publish, auth.certified_subscribe)
    return Grants.of(auth.anonymous, auth.anonymous_publish, auth.anonymous_subscribe)


def _token_commands(keys: Sequence[Key], rights: Sequence[str], filename: str, twistd: str) -> list[str]:
    """Return the command that makes a token with the `rights`; none if pushd has no secret to sign with."""
    shared = [key for key in keys if key.algorithm.startswith("HS")]
    if not shared:
        return []
    words = [twistd, "pushd", "--config", filename, "--token"]
    if len(shared) > 1:
        words += ["--key", shared[0].name]
    for right in rights:
        words += [f"--{right}", {"subscribe": _SUBSCRIBED, "publish": _PUBLISHED}[right]]
    return [f"TOKEN=$({shlex.join(words)})"]
