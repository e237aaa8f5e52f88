"""Work that takes longer than the right to do it."""

from __future__ import annotations

from pushd.access import NOTHING, Identity
from pushd.outside import Outside
from tests.outsiders import Registry, a_user
from tests.rigs import Client, DaemonTests, json_lines

LINES = 3000


class BatchTests(DaemonTests):
    """A batch that takes several turns."""

    config = "[auth]\nanonymous = publish, subscribe\n[site]\ndemo = no\n[channels]\nhistory_size = 5000\n"
    registry: Registry

    def setUp(self) -> None:
        """Know a user."""
        self.registry = Registry({"a": a_user("ada")})
        self.world = Outside(self.registry)
        super().setUp()

    def begin(self, **headers: str) -> Client:
        """Begin a batch; its first turn is over."""
        client = self.rig.client()
        body = b'{"channel":"news","data":"x"}\n' * LINES
        client.send("POST", "/publish", headers=headers, body=body)
        return client

    def assert_refused(self, client: Client, status: int, says: str) -> None:
        """What was not published in the first turn is refused, and so not all lines are answered."""
        for _ in range(20):
            self.rig.turn()
        answers = json_lines(client.response.body)
        published = [one for one in answers if "id" in one]
        self.assertEqual(len(published), 500)
        errors = [one["error"] for one in answers[500:]]
        self.assertEqual({error["status"] for error in errors[:-1]}, {status})
        self.assertIn(says, errors[0]["detail"])
        self.assertEqual(len(errors), 101)
        self.assertIn("in a row", errors[-1]["detail"])

    def test_nothing_more_is_published_when_the_token_is_no_good_any_more(self) -> None:
        client = self.begin(Authorization="Bearer a")
        del self.registry.identities["a"]
        self.assert_refused(client, 401, "nobody knows this token")

    def test_nothing_more_is_published_when_the_token_has_lost_the_right(self) -> None:
        client = self.begin(Authorization="Bearer a")
        self.registry.identities["a"] = Identity(NOTHING)
        self.assert_refused(client, 403, "no right to publish")

    def test_nothing_more_is_published_when_a_reload_has_taken_the_right(self) -> None:
        client = self.begin()
        self.rig.reload(self.config.replace("publish, subscribe", "subscribe"))
        self.assert_refused(client, 401, "no right to publish")

    def test_a_right_that_a_reload_has_left_is_left(self) -> None:
        client = self.begin()
        self.rig.reload(self.config.replace("publish, subscribe", "subscribe"))
        self.rig.reload(self.config)
        for _ in range(20):
            self.rig.turn()
        self.assertEqual(len(json_lines(client.response.body)), LINES)
