"""Rights: who may publish and who may subscribe."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pushd.access import EVERYTHING, Grants
from pushd.errors import Forbidden


class GrantsTests(SynchronousTestCase):
    def assertForbidden(self, grants: Grants, right: str) -> None:
        error = self.assertRaises(Forbidden, getattr(grants, f"check_{right}"), "a/b")
        self.assertEqual(error.problem()["status"], 403)
        self.assertIn("'a/b'", error.detail)
        self.assertIn(right, error.detail)

    def test_each_right_is_given_by_itself(self) -> None:
        publisher = Grants(publish=True, subscribe=False)
        publisher.check_publish("a/b")
        self.assertForbidden(publisher, "subscribe")
        reader = Grants(publish=False, subscribe=True)
        reader.check_subscribe("a/b")
        self.assertForbidden(reader, "publish")

    def test_no_right_means_none(self) -> None:
        for right in ("publish", "subscribe"):
            self.assertForbidden(Grants(publish=False, subscribe=False), right)

    def test_the_daemon_itself_may_do_everything(self) -> None:
        EVERYTHING.check_publish("a")
        EVERYTHING.check_subscribe("**")
