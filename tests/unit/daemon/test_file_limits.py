"""How the files that may be open are divided."""

from __future__ import annotations

from resource import RLIM_INFINITY

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.config.loader import parse_bytes
from pushd.config.settings import Config
from pushd.daemon import file_limits as descriptors
from pushd.daemon.file_limits import Plan, plan

HOOKS = "before_connect = http://a.example/1\nbefore_publish = http://a.example/2\nafter = http://b.example/\n"
OTHER_HOSTS = HOOKS.replace("a.example/2", "c.example/")
SECRET = "secret = whsec_dGhlIHNlY3JldCBvZiBhbGwgaG9va3MsIDMyIGJ5dGU=\n"


def config(limits: str = "", hooks: str = "", more: str = "") -> Config:
    """Read a configuration with these options."""
    text = f"[limits]\n{limits}\n{more}\n" + (f"[hooks]\n{hooks}{SECRET}" if hooks else "")
    return parse_bytes(text.encode(), "pushd.ini")


class PlanTests(SynchronousTestCase):
    def plan(self, files: int, limits: str = "", hooks: str = "", more: str = "") -> Plan:
        """Divide so many files."""
        self.patch(descriptors, "getrlimit", lambda what: (files, 10**6))
        return plan(config(limits, hooks, more))

    def test_without_a_number_connections_are_what_is_left(self) -> None:
        for files, most in ((1024, 896), (65536, 65408), (100, 50), (RLIM_INFINITY, 0)):
            self.assertEqual(self.plan(files).connections, most)
        self.assertEqual(self.plan(1024, "connections = 7").connections, 7)

    def test_it_is_said_how_many_there_may_be(self) -> None:
        self.assertEqual(self.plan(524288).summary, "at most 524160 connections at once: 524288 files may be open")
        self.assertEqual(
            self.plan(524288, "connections = 7").summary, "at most 7 connections at once: 524288 files may be open"
        )
        self.assertEqual(
            self.plan(RLIM_INFINITY).summary, "any number of connections at once: any number of files may be open"
        )

    def test_without_hooks_nothing_is_kept_for_questions(self) -> None:
        for hooks in "", "after = http://a.example/\n":
            found = self.plan(1024, hooks=hooks)
            self.assertEqual((found.connections, found.complaint), (896, None))

    def test_questions_have_room_beside_connections(self) -> None:
        found = self.plan(65536, hooks=HOOKS)
        self.assertEqual((found.connections, found.questions, found.complaint), (65408 - 1000 - 100, 1000, None))

    def test_questions_are_fewer_if_few_files_may_be_open_and_the_operator_is_told(self) -> None:
        found = self.plan(1024, hooks=HOOKS)
        self.assertEqual((found.connections, found.questions), (896 - 224 - 56, 224))
        self.assertEqual(
            found.complaint,
            "only 1024 files may be open: there is room for 224 of [hooks] questions = 1000; raise ulimit -n (with "
            "systemd, LimitNOFILE=)",
        )
        self.assertIsNone(self.plan(1024, hooks=f"{HOOKS}questions = 200\n").complaint)

    def test_connections_that_are_configured_leave_the_rest_to_questions(self) -> None:
        found = self.plan(1024, "connections = 100", HOOKS)
        self.assertEqual((found.connections, found.questions), (100, 896 - 100 - 56))
        self.assertIsNone(self.plan(2048, "connections = 100", HOOKS).complaint)

    def test_connections_that_do_not_fit_are_told_of(self) -> None:
        found = self.plan(1024, "connections = 1000")
        self.assertEqual(found.connections, 1000)
        self.assertEqual(
            found.complaint,
            "only 1024 files may be open: [limits] connections = 1000 wants 1128 files in all; raise ulimit -n "
            "(with systemd, LimitNOFILE=)",
        )
        both = self.plan(1024, "connections = 1000", HOOKS).complaint
        assert both is not None
        self.assertIn("[limits] connections = 1000 wants", both)
        self.assertIn("224 of [hooks] questions = 1000", both)

    def test_large_files_of_a_site_have_room(self) -> None:
        found = self.plan(1024, more="[site]\nroot = /srv\n")
        self.assertEqual((found.connections, found.site_files), (896 - 112, 112))
        self.assertEqual(self.plan(524288, more="[site]\nroot = /srv\n").site_files, 4096)

    def test_more_listeners_and_key_sets_have_room_beside_the_spare(self) -> None:
        listeners = "".join(
            f"[listen:l{number}]\nendpoint = tcp:{9000 + number}:interface=127.0.0.1\n" for number in range(20)
        )
        self.assertEqual(self.plan(1024, more=listeners).connections, 896 - 16)

    @given(
        st.integers(256, 2**20),
        st.integers(1, 100_000),
        st.integers(0, 100_000),
        st.booleans(),
        st.sampled_from(["", HOOKS, "before_publish = http://a.example/\n", OTHER_HOSTS]),
    )
    def test_the_sum_fits_or_the_operator_is_told(
        self, files: int, questions: int, connections: int, has_site: bool, hooks: str
    ) -> None:
        site = "[site]\nroot = /srv\n" if has_site else ""
        asked = f"{hooks}questions = {questions}\n" if hooks else ""
        found = self.plan(files, f"connections = {connections}", asked, site)
        hosts = len({name for name in ("a.example", "b.example", "c.example") if name in hooks})
        total = found.connections + descriptors._SPARE_FILES + (found.site_files if has_site else 0)
        if hooks:
            total += found.questions + (min(100, (files - 128) // 16) * (hosts - 1))
        self.assertTrue(total <= files or (connections and found.complaint), (found, total))
        self.assertTrue(1 <= found.questions <= (questions if hooks else 1000))
        self.assertGreaterEqual(found.connections, 1)
