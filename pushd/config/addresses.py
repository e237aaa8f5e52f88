"""Parsers for endpoints, hosts, URLs and web origins."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

__all__ = [
    "Endpoint",
    "parse_endpoint",
    "parse_host",
    "parse_host_pattern",
    "parse_network",
    "parse_origin",
    "parse_path",
    "parse_resource",
    "parse_url",
]

_PATH = re.compile(r"/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
_RESOURCE = re.compile(r"/(?!/)[A-Za-z0-9._~!$&'()*+;=:@%/?-]*")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*")
_PORT = re.compile(r"[0-9]{1,5}")
_INDEX = re.compile(r"[0-9]{1,4}")
_INTERFACE_PLACE = {"tcp": 2, "tcp6": 3}
"""Position of the interface among the positional arguments of an endpoint, by type."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed Twisted endpoint string."""

    args: tuple[str, ...]
    """The positional arguments; the first is the type of the endpoint."""

    named: dict[str, str]
    """The arguments written as ``name=value``."""

    @property
    def type(self) -> str:
        """The type: ``tcp``, ``unix``, ..."""
        return self.args[0]

    def argument(self, name: str, place: int) -> str:
        """Return the argument `name`, else the positional argument `place`, else an empty string."""
        by_place = self.args[place] if place < len(self.args) else ""
        return self.named.get(name, by_place)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect to the endpoint; False if unknown."""
        if self.type == "unix" or (self.type == "systemd" and self.argument("domain", 1) == "UNIX"):
            return True
        place = _INTERFACE_PLACE.get(self.type)
        return place is not None and _is_loopback(self.argument("interface", place))


def _is_loopback(interface: str) -> bool:
    if interface == "localhost":
        return True
    try:
        address = ip_address(interface)
        return address.is_loopback and getattr(address, "ipv4_mapped", None) is None
    except ValueError:
        return False


def parse_endpoint(text: str) -> Endpoint:
    """Parse a server endpoint string; raise `ValueError` if it is invalid.

    The syntax is that of `twisted.internet.endpoints.serverFromString`. The arguments of the types ``tcp``,
    ``tcp6``, ``unix`` and ``systemd`` are checked; only Twisted's plugins know those of other types.
    """
    args: list[str] = []
    named: dict[str, str] = {}
    for words in _split_endpoint(text):
        if len(words) == 1:
            args.append(words[0])
        else:
            named[words[0]] = words[1]
    if len(args) + len(named) < 2 or not args or not _TYPE.fullmatch(args[0]):
        raise ValueError(text)
    endpoint = Endpoint(tuple(args), named)
    if endpoint.type in ("tcp", "tcp6"):
        _check_port(endpoint.argument("port", 1), least=0)
    elif endpoint.type == "unix" and not endpoint.argument("address", 1):
        raise ValueError(text)
    elif endpoint.type == "systemd":
        _check_inherited(endpoint)
    return endpoint


def _check_inherited(endpoint: Endpoint) -> None:
    """Raise `ValueError` unless `endpoint` has a domain, and either the index or the name of a systemd socket."""
    index, name = endpoint.argument("index", 2), endpoint.argument("name", 3)
    if endpoint.argument("domain", 1) not in ("INET", "INET6", "UNIX") or bool(index) == bool(name):
        raise ValueError("systemd:domain=INET:name=NAME")
    if index and not _INDEX.fullmatch(index):
        raise ValueError(index)


def _split_endpoint(text: str) -> list[list[str]]:
    """Split at colons, and each part at its first ``=``; a backslash escapes the next character."""
    parts = [[""]]
    characters = iter(text)
    for character in characters:
        if character == ":":
            parts.append([""])
        elif character == "=" and len(parts[-1]) == 1:
            parts[-1].append("")
        elif character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise ValueError(text)
            parts[-1][-1] += escaped
        else:
            parts[-1][-1] += character
    return parts


def parse_path(text: str) -> str:
    """Return `text` if it is the path of a page, as in a URL; else raise `ValueError` with it."""
    if not _PATH.fullmatch(text):
        raise ValueError(text)
    return text


def parse_resource(text: str) -> str:
    """Return `text` if it is the path of a resource, with an optional query; else raise `ValueError` with it."""
    if not _RESOURCE.fullmatch(text):
        raise ValueError(text)
    return text


def parse_network(text: str) -> str:
    """Return the normalized address of a machine or network, or ``unix``; else raise `ValueError`."""
    return text if text == "unix" else str(ip_network(text)).removesuffix("/32").removesuffix("/128")


def parse_url(text: str, schemes: Collection[str]) -> str:
    """Return `text` if it is a URL with one of `schemes`; else raise `ValueError` with it.

    The scheme ``http to this machine`` means http to the loopback interface. User and password are rejected,
    because they would be logged, and so is a fragment.
    """
    parts = urlsplit(text)
    host = parts.hostname or ""
    is_known = parts.scheme in schemes or ("http to this machine" in schemes and _is_loopback(host))
    if parts.scheme not in ("http", "https") or not is_known:
        raise ValueError(text)
    if not text.isascii() or not text.isprintable() or " " in text or "@" in parts.netloc or parts.fragment:
        raise ValueError(text)
    parse_host(parts.netloc)
    return text


def parse_host(text: str) -> str:
    """Return ``host`` or ``host:port`` in lower case; raise `ValueError` if it is invalid."""
    match = _AUTHORITY.fullmatch(text.lower())
    if match is None or not text.isascii():
        raise ValueError(text)
    host, port = match.groups()
    if host.startswith("["):
        host = f"[{IPv6Address(host[1:-1])}]"
    elif len(host) > 253 or not _NAME.fullmatch(host):
        raise ValueError(text)
    if port is None:
        return host
    return f"{host}:{_check_port(port, least=1)}"


def parse_host_pattern(text: str) -> str:
    """Return a host as `parse_host` does, or ``*.`` and a name, for all its subdomains; else raise `ValueError`.

    The name must have at least two labels, to reject ``*.com``.
    """
    if not text.startswith("*."):
        return parse_host(text)
    host = parse_host(text[2:])
    labels = host.partition(":")[0].split(".")
    if len(labels) < 2 or labels[-1].isdecimal() or host.startswith("["):
        raise ValueError(text)
    return f"*.{host}"


def parse_origin(text: str) -> str:
    """Return a web origin, or ``*``, in the form sent by browsers (RFC 6454, section 6.2).

    Its host may be a pattern, see `parse_host_pattern`, and its port ``*``. Raise `ValueError` if it is invalid,
    such as a whole URL.
    """
    if text == "*":
        return text
    scheme, _, authority = text.lower().partition("://")
    if not _SCHEME.fullmatch(scheme):
        raise ValueError(text)
    if authority.endswith(":*"):
        host = parse_host_pattern(authority[:-2])
        if re.search(r":[0-9]+\Z", host):
            raise ValueError(text)
        return f"{scheme}://{host}:*"
    host = parse_host_pattern(authority)
    return f"{scheme}://{host}".removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def _check_port(text: str, *, least: int) -> int:
    """Return the port number in `text`; raise `ValueError` if it is out of range."""
    if not _PORT.fullmatch(text) or not least <= int(text) <= 65535:
        raise ValueError(text)
    return int(text)
