"""What is said of TLS, over TLS and without it."""

from __future__ import annotations

import ssl

import httpx
import pytest

from tests.e2e.daemon import Daemon, running

pytestmark = pytest.mark.timeout(120)

PATHS = {"/": 200, "/none": 404, "/channels": 200, "/channels?limit=x": 400, "/poll?channel=none": 204}


def said(daemon: Daemon, url: str, *, http2: bool) -> list[list[str]]:
    """Return what is said of coming back with TLS, with each of several answers."""
    trusted = ssl.create_default_context(cafile=str(daemon.certificate))
    with httpx.Client(base_url=url, http2=http2, verify=trusted, trust_env=False, timeout=15) as client:
        answers = {path: client.get(path) for path in PATHS}
    assert {path: answer.status_code for path, answer in answers.items()} == PATHS
    assert {answer.http_version for answer in answers.values()} == {"HTTP/2" if http2 else "HTTP/1.1"}
    return [answer.headers.get_list("strict-transport-security") for answer in answers.values()]


class TestStrictTransport:
    """``[site] strict_transport``."""

    def test_who_came_with_tls_is_told_to_come_back_with_it(self) -> None:
        with running("[site]\nstrict_transport = 730d\n[limits]\npoll_timeout = 1s\n") as daemon:
            expected = [["max-age=63072000"]] * len(PATHS)
            assert said(daemon, daemon.https, http2=True) == expected
            assert said(daemon, daemon.https, http2=False) == expected
            # Without TLS anybody could have said it: RFC 6797, section 7.2.
            assert said(daemon, daemon.http, http2=False) == [[]] * len(PATHS)

    def test_nobody_is_told_if_the_operator_did_not_say_so(self) -> None:
        with running("[limits]\npoll_timeout = 1s\n") as daemon:
            assert said(daemon, daemon.https, http2=True) == [[]] * len(PATHS)
