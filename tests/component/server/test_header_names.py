"""The names of header fields that Twisted remembers, and the private parts of it that this relies on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http_headers
from twisted.web.http_headers import Headers

from pushd.server.web.header_names import bound_header_names
from tests.rigs.daemon import DaemonTests


class HeaderNamesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Bound them."""
        bound_header_names()

    def known(self) -> dict[bytes | str, bytes]:
        return http_headers._nameEncoder._canonicalHeaderCache

    def test_a_name_is_remembered_and_however_many_come_they_are_few_and_short(self) -> None:
        headers = Headers()
        for number in range(20_000):
            headers.addRawHeader(f"x-{number}".encode(), b"")
        headers.addRawHeader(b"y" * 5000, b"")
        self.assertLessEqual(len(self.known()), 1000)
        self.assertLessEqual(max(map(len, self.known())), 64)
        self.assertTrue(headers.hasHeader(b"X-19999"))
        self.assertTrue(headers.hasHeader(b"Y" * 5000))
        headers.hasHeader(b"x-again")
        self.assertEqual(self.known()[b"x-again"], b"X-Again")

    def test_to_do_it_again_forgets_nothing(self) -> None:
        before = self.known()
        bound_header_names()
        self.assertIs(self.known(), before)


class DaemonHeaderNamesTests(DaemonTests):
    """A daemon bounds them."""

    def test_what_clients_send_does_not_stay(self) -> None:
        for each in range(30):
            fields = {f"x-{each}-{number}": "y" for number in range(80)}
            self.rig.request("GET", "/healthz", headers=fields)
        self.assertLessEqual(len(http_headers._nameEncoder._canonicalHeaderCache), 1000)
