"""What a client that comes back may rely on, over whatever transport, whatever became of the daemon meanwhile."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.rigs.daemon import DaemonRig, DaemonTests, StoredDaemonRig
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient
from tests.rigs.subscribers import (
    AskingJsonSubscriber,
    JsonSubscriber,
    JsonTunnelSubscriber,
    PollSubscriber,
    PushSubscriber,
    RawSubscriber,
    ReturningSseSubscriber,
    SseJsonSubscriber,
    SseSubscriber,
    StreamSubscriber,
    Subscriber,
)

_CONFIG = """
[site]
demo = no
[channels]
history_size = 1000
history_age = 1d
[channels:few/**]
history_size = 3
[channels:brief/**]
history_age = 10s
[channels:small/**]
history_bytes = 1KiB
[channels:none/**]
history_size = 0
[channels:instant/**]
history_age = 0s
"""

Meanwhile = Callable[[], None]


class Follower:
    """A client that comes back again and again. All that it knows is what has come."""

    def __init__(self, test: ResumeRules, channels: Sequence[str], since: str) -> None:
        self._test = test
        self._channels = channels
        self.position = since
        """Where it is going to resume."""
        self.got: list[bytes] = []
        """What came, all in all."""

    def come(self, *, cut_after: int | None = None) -> Subscriber:
        """Connect."""
        test = self._test
        self.subscriber = test.kind(test.rig, self._channels, self.position, cut_after=cut_after)
        return self.subscriber

    def take_stock(self) -> None:
        """The connection is gone: remember what it brought."""
        datas = self.subscriber.datas
        self.got += datas
        if self.subscriber.has_positions:
            self.position = self.subscriber.position or self.position
        elif datas:  # the bare data have no positions; this client knows the publisher's
            self.position = self._test.id_of[datas[-1]]

    def leave(self) -> None:
        """Disconnect."""
        self.subscriber.disconnect()
        self._test.rig.turn()
        self.take_stock()


if TYPE_CHECKING:
    _Base = DaemonTests
else:
    _Base = object


class ResumeRules(_Base):
    """What a client that comes back may rely on."""

    kind: type[Subscriber]
    rig: DaemonRig

    config = _CONFIG

    def start(self, config: str = "") -> None:
        """Start a daemon with a store of its own."""
        self.directory = self.new_directory()
        rig = StoredDaemonRig(self.directory, config, self.http)
        self.assertEqual(rig.failures, [])
        self.addCleanup(rig.abandon)
        self.rig = rig
        self.id_of: dict[bytes, str] = {}
        self.sequence_of: dict[bytes, int] = {}

    def new_directory(self) -> Path:
        """Make a directory that lasts as long as the test."""
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        return Path(directory.name)

    @property
    def meanwhiles(self) -> Iterator[tuple[str, Meanwhile]]:
        """What may happen to the daemon while a client is away."""
        yield "stays", lambda: None
        yield "restarts", lambda: self.rig.restart(after_s=1)
        yield "crashes", lambda: self.rig.crash(after_s=1)

    def publish(self, channel: str, data: bytes, *, id: str | None = None) -> str:
        """Publish an event, and remember its id and where it is in the log."""
        self.id_of[data] = event_id = self.rig.publish(channel, data, id=id)
        self.sequence_of[data] = self.rig.parts.bus.log.sequence
        return event_id

    def publish_each(self, channel: str, *datas: bytes) -> list[str]:
        """Publish several."""
        return [self.publish(channel, data) for data in datas]

    def publish_batch(self, *drafts: Mapping[str, object]) -> list[str]:
        """Publish a batch of texts."""
        ids = []
        for draft, said in zip(drafts, self.rig.publish_many(*drafts), strict=True):
            data = str(draft["data"]).encode()
            self.id_of[data], self.sequence_of[data] = said["id"], int(said["id"].partition("-")[2])
            ids.append(said["id"])
        return ids

    @property
    def position(self) -> str:
        """Where the log is now."""
        position: str = self.rig.get("/channels/any").json["position"]
        return position

    def assert_goes_on(self, subscriber: Subscriber, channel: str, *datas: bytes) -> None:
        """The subscriber got these, gets what is published now, and is still there."""
        live = b"live %d" % len(self.id_of)
        self.publish(channel, live)
        self.rig.turn()
        self.assertIsNone(subscriber.closed_reason)
        self.assertEqual(subscriber.datas, [*datas, live])
        if subscriber.has_ids:
            self.assertEqual(subscriber.ids, [self.id_of[data] for data in (*datas, live)])
        if subscriber.has_positions:
            position_of, sequence_of = self.rig.parts.bus.log.position_of, self.sequence_of
            self.assertEqual(subscriber.positions, [position_of(sequence_of[data]) for data in (*datas, live)])
        subscriber.disconnect()
        self.rig.turn()

    def assert_recovered(self, channels: str | Sequence[str], since: str, *datas: bytes) -> None:
        """From `since` come exactly these, then what is published to the first channel, and nothing is missing."""
        names = [channels] if isinstance(channels, str) else channels
        subscriber = self.kind(self.rig, names, since)
        self.assertTrue(subscriber.recovered, since)
        self.assert_goes_on(subscriber, names[0], *datas)

    def assert_lost(self, channel: str, since: str, *left: bytes) -> None:
        """Who comes back to `since` is told that something is missing, and gets what is left."""
        subscriber = self.kind(self.rig, [channel], since)
        self.assertFalse(subscriber.recovered, since)
        if not subscriber.has_positions:  # there is no place to say so; it begins anew when it has read the reason
            self.assertEqual(subscriber.datas, [])
            self.assertIn("lost", subscriber.closed_reason or "")
            subscriber = self.kind(self.rig, [channel], "earliest")
        self.assert_goes_on(subscriber, channel, *left)

    # Whenever it goes

    def _wave(self, name: str) -> list[bytes]:
        """Publish to several channels; return what who follows ``wave/*`` gets."""
        self.publish("wave/a", f"{name} 1".encode())
        self.publish_batch(
            {"channels": ["wave/b", "wave/a"], "data": f"{name} 2"},
            {"channel": "wave/elsewhere/c", "data": f"{name} not for it"},
            {"channel": "wave/c", "data": f"{name} 3" + "x" * 300, "event": "greeting"},
        )
        self.publish("wave/b", f"{name} 4 ☃".encode(), id=f"{name}:given")
        self.publish("wave/a", f"{name} 5".encode())
        texts = [f"{name} 1", f"{name} 2", f"{name} 3" + "x" * 300, f"{name} 4 ☃", f"{name} 5"]
        return [text.encode() for text in texts]

    def test_whatever_byte_was_the_last_it_gets_every_event_once(self) -> None:
        since = self.position
        wanted = self._wave("whole")
        whole = self.kind(self.rig, ["wave/a", "wave/*"], since)
        size = len(whole.socket_connection.received)
        whole.disconnect()
        self.assertEqual(whole.datas, wanted)
        for cuts, (name, meanwhile) in zip((40, 8, 8), self.meanwhiles, strict=True):
            for cut_after in range(0, size, max(1, size // cuts)):
                follower = Follower(self, ["wave/a", "wave/*"], self.position)
                wanted = self._wave(f"{name} {cut_after}")
                follower.come(cut_after=cut_after)
                follower.leave()
                self.publish("wave/b", last := f"{name} {cut_after} last".encode())
                meanwhile()
                self.assertTrue(follower.come().recovered, cut_after)
                follower.leave()
                self.assertEqual(follower.got, [*wanted, last], cut_after)

    def test_after_each_event_it_goes_on_whatever_the_daemon_did(self) -> None:
        """The client is connected when the daemon goes, and has got so many events live."""
        for name, meanwhile in self.meanwhiles:
            follower = Follower(self, ["news/*"], self.position)
            published = 0
            for count in range(6):
                self.assertTrue(follower.come().recovered)
                for _ in range(count):
                    self.publish(f"news/{published % 3}", b"%s %d" % (name.encode(), published))
                    self.rig.turn()
                    published += 1
                meanwhile()
                if name == "stays":
                    follower.leave()
                else:
                    follower.take_stock()
                self.publish("news/1", b"%s %d" % (name.encode(), published))
                published += 1
            follower.come()
            follower.leave()
            self.assertEqual(follower.got, [b"%s %d" % (name.encode(), number) for number in range(published)])

    def test_events_that_were_on_their_way_when_it_went_come_once(self) -> None:
        """They were published while the daemon still wrote to it, and it takes only a part of that."""
        for name, meanwhile in self.meanwhiles:
            follower = Follower(self, ["news"], self.position)
            subscriber = follower.come(cut_after=10_000)
            datas = [b"%s %d " % (name.encode(), number) + b"x" * 1000 for number in range(20)]
            for data in datas:
                self.publish("news", data)
            meanwhile()
            if subscriber.is_open:
                subscriber.disconnect()
            follower.take_stock()
            self.assertLess(len(follower.got), 20)
            self.assertTrue(follower.come().recovered)
            follower.leave()
            self.assertEqual(follower.got, datas)

    def test_large_events_come_once(self) -> None:
        since = self.position
        datas = [b"%d " % number + b"x" * size for number, size in enumerate([1_000_000, 7, 300_000])]
        self.publish_each("large", *datas)
        for _, meanwhile in self.meanwhiles:
            for cut_after in (100_000, 1_100_000):
                follower = Follower(self, ["large"], since)
                follower.come(cut_after=cut_after)
                follower.take_stock()
                self.assertLess(len(follower.got), 3)
                meanwhile()
                self.assertTrue(follower.come().recovered)
                follower.leave()
                self.assertEqual([data[:2] for data in follower.got], [data[:2] for data in datas])
                self.assertEqual(list(map(len, follower.got)), list(map(len, datas)))

    def test_what_is_published_while_it_catches_up_comes_once(self) -> None:
        since = self.position
        datas = [b"%d " % number + b"x" * 20_000 for number in range(20)]
        self.publish_each("news", *datas)
        self.rig.restart()
        subscriber = self.kind(self.rig, ["news"], since, reads=False)
        more = [b"meanwhile %d" % number for number in range(5)]
        self.publish_each("news", *more)
        subscriber.connection.start_reading()
        self.assertTrue(subscriber.recovered)
        self.assert_goes_on(subscriber, "news", *datas, *more)

    def test_every_position_leads_to_what_came_after_it(self) -> None:
        ids = [self.position]
        datas = [b"%d" % number for number in range(7)]
        for number, data in enumerate(datas):
            ids.append(self.publish(("a", "b/c", "ü %+&?#")[number % 3], data))
        for _, meanwhile in self.meanwhiles:
            meanwhile()
            for count, since in enumerate(ids):
                subscriber = self.kind(self.rig, ["ü %+&?#", "a", "b/**"], since)
                self.assertTrue(subscriber.recovered)
                self.assertEqual(subscriber.datas, datas[count:])
                subscriber.disconnect()

    def test_ids_that_publishers_gave_are_positions(self) -> None:
        self.publish("news", b"0")
        for number, (_, meanwhile) in enumerate(self.meanwhiles):
            self.publish("news", b"%d one" % number, id=f"urn:uuid:{number}")
            self.publish("news", b"%d two" % number, id=f"ü/{number}")
            self.publish("other", b"%d three" % number)
            meanwhile()
            self.assertEqual(self.rig.publish("news", b"%d two" % number, id=f"ü/{number}"), f"ü/{number}")
            subscriber = self.kind(self.rig, ["news", "other"], f"urn:uuid:{number}")
            self.assertTrue(subscriber.recovered)
            self.assertEqual(subscriber.datas, [b"%d two" % number, b"%d three" % number])
            subscriber.disconnect()
            self.assert_recovered(["other", "news"], f"ü/{number}", b"%d three" % number)

    def test_the_position_of_an_event_is_good_though_its_own_id_is_none_any_more(self) -> None:
        """A channel that keeps nothing, or little, makes no gap in the others of the connection."""
        for number, (_, meanwhile) in enumerate(self.meanwhiles):
            follower = Follower(self, ["none/news", "news"], self.position)
            if not follower.come().has_positions:
                return
            self.publish("none/news", gone := b"%d gone" % number, id=f"given:{number}")
            self.rig.turn()
            follower.leave()
            self.publish("news", since := b"%d since" % number)
            meanwhile()
            subscriber = follower.come()
            self.assertTrue(subscriber.recovered)
            follower.leave()
            self.assertEqual(follower.got, [gone, since])
            again = self.kind(self.rig, ["none/news", "news"], f"given:{number}")
            self.assertFalse(again.recovered)
            again.disconnect()

    def test_from_earliest_comes_all_that_is_kept(self) -> None:
        datas = [b"%d" % number for number in range(5)]
        self.publish_each("few/news", *datas)
        kept = datas[-3:]
        for _, meanwhile in self.meanwhiles:
            meanwhile()
            self.assert_recovered("few/news", "earliest", *kept)
            kept = [*kept[1:], max(self.id_of, key=list(self.id_of).index)]

    def test_an_idle_channel_has_lost_nothing(self) -> None:
        since = self.publish("news", b"one")
        for _, meanwhile in self.meanwhiles:
            self.publish("other", b"%d" % len(self.id_of))
            meanwhile()
            subscriber = self.kind(self.rig, ["news", "never/*"], since)
            self.assertTrue(subscriber.recovered)
            self.assertEqual(subscriber.datas, [])
            subscriber.disconnect()

    # What is no longer kept

    def _lost_by(self, channel: str, lose: Callable[[], Sequence[bytes]]) -> None:
        """After `lose`, which answers what is left, positions from before are lost, whatever the daemon does."""
        for _, meanwhile in self.meanwhiles:
            before, *_ = self.publish_each(channel, b"first %d" % len(self.id_of), b"second %d" % len(self.id_of))
            left = lose()
            meanwhile()
            self.assert_lost(channel, before, *left)
            self.rig.request("DELETE", f"/channels/{channel.replace('/', '%2F')}")

    def test_of_what_too_many_events_have_pushed_out_it_is_told(self) -> None:
        def lose() -> list[bytes]:
            datas = [b"%d of them, from %d" % (number, len(self.id_of)) for number in range(3)]
            self.publish_each("few/news", *datas)
            return datas

        self._lost_by("few/news", lose)

    def test_of_what_became_too_old_it_is_told(self) -> None:
        def lose() -> list[bytes]:
            self.rig.wait(6)
            self.publish("brief/news", data := b"young %d" % len(self.id_of))
            self.rig.wait(5)
            return [data]

        self._lost_by("brief/news", lose)

    def test_of_what_became_too_old_while_the_daemon_was_away_it_is_told(self) -> None:
        for after in (self.rig.restart, self.rig.crash):
            first, second = self.publish_each("brief/a", b"1", b"2")
            self.rig.wait(6)
            self.publish("brief/a", b"3")
            after(after_s=6)
            self.assert_recovered("brief/a", second, b"3")
            self.assert_lost("brief/a", first, b"3", *list(self.id_of)[-1:])
            self.rig.request("DELETE", "/channels/brief%2Fa")

    def test_of_what_took_too_much_it_is_told(self) -> None:
        def lose() -> list[bytes]:
            self.publish("small/news", data := b"%d " % len(self.id_of) + b"x" * 800)
            return [data]

        self._lost_by("small/news", lose)

    def test_of_what_was_deleted_it_is_told(self) -> None:
        def lose() -> list[bytes]:
            self.assertEqual(self.rig.request("DELETE", "/channels/news").status, 204)
            return []

        self._lost_by("news", lose)

    def test_of_what_all_channels_together_had_no_room_for_it_is_told(self) -> None:
        self.start(f"[pushd]\nstore_size = 1MiB\n{_CONFIG}")

        def lose() -> list[bytes]:
            for _ in range(12):
                self.publish(f"other/{len(self.id_of)}", b"%d " % len(self.id_of) + b"x" * 100_000)
            self.rig.wait(2)
            return []

        self._lost_by("news", lose)

    def test_a_position_after_which_nothing_was_dropped_is_good_however_old_it_is(self) -> None:
        before, last = self.publish_each("brief/news", b"one", b"two")
        self.rig.wait(11)
        for _, meanwhile in self.meanwhiles:
            meanwhile()
            self.rig.wait(11)
            self.assert_lost("brief/news", before)
            self.assert_recovered("brief/news", last, list(self.id_of)[-1])
            self.rig.wait(11)
            last = list(self.id_of.values())[-1]

    def test_far_older_than_what_is_kept_is_known_from_the_id_alone(self) -> None:
        first = self.publish("few/news", b"first")
        for number in range(5):
            self.publish_batch(*({"channel": "few/news", "data": f"{number} {each}"} for each in range(400)))
        for _, meanwhile in self.meanwhiles:
            meanwhile()
            self.assert_lost("few/news", first, *list(self.id_of)[-3:])

    def test_of_an_id_that_its_publisher_gave_and_that_is_gone_it_is_told(self) -> None:
        for _, meanwhile in self.meanwhiles:
            count = len(self.id_of)
            self.publish("few/news", b"given %d" % count, id=f"given:{count}")
            self.publish_each("few/news", b"1 %d" % count, b"2 %d" % count, b"3 %d" % count)
            meanwhile()
            self.assert_lost("few/news", f"given:{count}", *list(self.id_of)[-3:])

    def test_a_channel_that_keeps_nothing_tells_the_truth(self) -> None:
        """What was published since is lost; if nothing was, nothing is."""
        for channel in ("none/news", "instant/news"):
            for _, meanwhile in self.meanwhiles:
                count = len(self.id_of)
                first, last = self.publish_each(channel, b"one %d" % count, b"two %d" % count)
                meanwhile()
                self.assert_lost(channel, first)
                self.assert_lost(channel, last)  # the event that went on
                last = list(self.id_of.values())[-1]
                meanwhile()
                self.assert_recovered(channel, last)
                meanwhile()
                self.assert_recovered(channel, "earliest")
                self.assert_recovered(channel, self.position)

    def test_a_channel_that_was_forgotten_tells_no_lies(self) -> None:
        """All that is known of it is that it had nothing later than a certain place."""
        self.start(f"{_CONFIG}\n[limits]\nchannels = 3\n")
        for _, meanwhile in self.meanwhiles:
            count = len(self.id_of)
            self.publish("none/news", b"one %d" % count)
            before = list(self.id_of.values())[-1]
            self.publish("none/news", b"two %d" % count)
            for number in range(4):
                self.publish(f"none/{number}", b"other %d %d" % (number, count))
            after = list(self.id_of.values())[-1]
            meanwhile()
            self.assert_lost("none/news", before)
            self.assert_recovered("none/never", after)

    # What never was

    def test_of_positions_that_never_were_it_is_told(self) -> None:
        last = self.publish("news", b"one")
        epoch, _, sequence = last.partition("-")
        wrong = [
            f"{epoch}-{int(sequence) + 1}",
            f"{epoch}-{10**18}",
            f"{epoch}-{10**19}",
            f"{epoch}-0{sequence}",
            f"{epoch}--1",
            f"{'0' * 10}-{sequence}",
            "garbage",
            "0",
            "☃" * 80,
            "x" * 4000,
        ]
        for _, meanwhile in self.meanwhiles:
            meanwhile()
            for since in wrong:
                subscriber = self.kind(self.rig, ["news"], since)
                self.assertFalse(subscriber.recovered, since)
                subscriber.disconnect()
            self.assert_lost("news", wrong[0], b"one", *list(self.id_of)[1:])
            wrong[0] = f"{epoch}-{self.rig.parts.bus.log.sequence + 1}"

    # When the store is not what it was

    def _positions(self) -> list[str]:
        """Publish, with and without ids, and answer positions that are good."""
        return [
            self.position,
            *self.publish_each("news", b"one", b"two"),
            self.publish("news", b"three", id="given"),
            self.publish("news", b"four"),
        ]

    def test_of_a_store_that_was_deleted_it_is_told(self) -> None:
        positions = self._positions()
        self.rig.restart(meanwhile=lambda: (self.directory / "pushd.db").unlink())
        for since in positions:
            subscriber = self.kind(self.rig, ["news"], since)
            self.assertFalse(subscriber.recovered, since)
            subscriber.disconnect()
        self.assert_lost("news", positions[-1])

    def test_of_a_store_that_was_deleted_after_a_crash_it_is_told(self) -> None:
        assert isinstance(self.rig, StoredDaemonRig)
        positions = self._positions()
        self.rig.abandon()
        (self.directory / "pushd.db").unlink()
        self.rig.start_again()
        self.assert_lost("news", positions[-1])

    def test_of_an_older_copy_that_was_put_back_it_is_told(self) -> None:
        """Also by ids that publishers gave, which say nothing of when that was."""
        positions = self._positions()
        copy = self.new_directory()
        self.rig.restart(meanwhile=lambda: shutil.copy(self.directory / "pushd.db", copy))
        self.publish("news", b"lost")

        def put_back() -> None:
            with open(self.directory / "pushd.db", "r+b") as file:
                file.truncate(0)
                file.write((copy / "pushd.db").read_bytes())

        self.rig.restart(meanwhile=put_back)
        for since in positions:
            subscriber = self.kind(self.rig, ["news"], since)
            self.assertFalse(subscriber.recovered, since)
            subscriber.disconnect()
        self.assert_lost("news", positions[-1], b"one", b"two", b"three", b"four")
        subscriber = self.kind(self.rig, ["news"], "earliest")
        self.rig.turn()
        self.assertTrue(subscriber.recovered)
        self.assertEqual(subscriber.datas[:4], [b"one", b"two", b"three", b"four"])
        subscriber.disconnect()
        if subscriber.has_positions:  # they are positions of now, though the ids are of before
            for count, again in enumerate(subscriber.positions[:4], 1):
                subscriber = self.kind(self.rig, ["news"], again)
                self.assertTrue(subscriber.recovered)
                self.assertEqual(subscriber.datas[: 4 - count], [b"one", b"two", b"three", b"four"][count:])
                subscriber.disconnect()
        since = self.publish("news", b"anew", id="given anew")
        for _, meanwhile in self.meanwhiles:
            meanwhile()
            subscriber = self.kind(self.rig, ["news"], "given")
            self.assertFalse(subscriber.recovered)
            subscriber.disconnect()
            later = list(self.id_of)[list(self.id_of).index(b"anew") + 1 :]
            self.assert_recovered("news", since, *later)

    def test_of_a_machine_that_failed_it_is_told_unless_everything_was_on_the_disk(self) -> None:
        """The end of the store may be missing after that, and whether it is cannot be seen."""
        for durability in ("process", "power"):
            self.start(f"[pushd]\ndurability = {durability}\n{_CONFIG}")
            assert isinstance(self.rig, StoredDaemonRig)
            positions = self._positions()
            self.rig.abandon()
            with closing(sqlite3.connect(self.directory / "pushd.db", isolation_level=None)) as store:
                store.execute("UPDATE log SET boot = 'the one before'")
            self.rig.start_again()
            if durability == "process":
                self.assert_lost("news", positions[-1], b"one", b"two", b"three", b"four")
            else:
                self.assert_recovered("news", positions[1], b"two", b"three", b"four")

    def test_what_cannot_be_read_ends_it_with_the_reason(self) -> None:
        """It has got what came before, and nothing of what comes after."""
        texts = [f"{number} " + "x" * 500 for number in range(600)]
        for start in range(0, 600, 20):
            self.publish_batch(*({"channel": "news", "data": text} for text in texts[start : start + 20]))
        datas = [text.encode() for text in texts]
        since = self.id_of[datas[0]]
        self.publish("other", b"fine")

        def damage() -> None:
            with closing(sqlite3.connect(self.directory / "pushd.db", isolation_level=None)) as store:
                store.execute("UPDATE block SET checksum = checksum + 1 WHERE last_sequence = 300")

        self.rig.restart(meanwhile=damage)
        subscriber = self.kind(self.rig, ["news", "other"], since)
        self.assertIn("cannot be read", subscriber.closed_reason or "")
        got = subscriber.datas
        self.assertLess(len(got), 300)
        self.assertEqual(got, datas[1 : len(got) + 1])
        self.assertEqual(self.rig.traces.subscribers, 0)
        self.assert_recovered("other", "earliest", b"fine")

    def test_a_store_in_memory_knows_no_position_from_before(self) -> None:
        self.rig = DaemonRig(_CONFIG, self.http)
        for again in (self.rig.restart, self.rig.crash):
            self.id_of.clear()
            positions = self._positions()
            self.assert_recovered("news", positions[-1])
            again()
            for since in positions:
                subscriber = self.kind(self.rig, ["news"], since)
                self.assertFalse(subscriber.recovered, since)
                subscriber.disconnect()
            self.assert_lost("news", positions[-1])

    # What its publisher has no answer for

    def test_what_was_never_written_is_never_seen(self) -> None:
        for durability in ("process", "power"):
            self.start(f"[pushd]\ndurability = {durability}\n{_CONFIG}")
            assert isinstance(self.rig, StoredDaemonRig)
            follower = Follower(self, ["news"], self.position)
            follower.come()
            self.publish("news", b"before")
            self.rig.worker.is_held = True
            publisher = HttpClient(self.rig)
            publisher.send("POST", "/channels/news", body=b"never written")
            if durability == "power":
                self.rig.turn()
            self.assertEqual(publisher.written, [])
            self.assertEqual(follower.subscriber.datas, [b"before"])
            self.rig.crash()
            follower.take_stock()
            self.assertTrue(follower.come().recovered)
            self.publish("news", b"after")
            follower.leave()
            self.assertEqual(follower.got, [b"before", b"after"])

    def test_it_goes_on_with_power_as_with_process(self) -> None:
        self.start(f"[pushd]\ndurability = power\n{_CONFIG}")
        self.test_after_each_event_it_goes_on_whatever_the_daemon_did()
        self.test_ids_that_publishers_gave_are_positions()

    def test_it_goes_on_when_almost_nothing_is_kept_in_memory(self) -> None:
        self.start(f"[pushd]\nstore_memory = 1MiB\n{_CONFIG}")
        since = self.position
        datas = [b"%d " % number + b"x" * 200_000 for number in range(20)]
        self.publish_each("news", *datas)
        for _, meanwhile in self.meanwhiles:
            meanwhile()
            subscriber = self.kind(self.rig, ["news"], since)
            self.assertTrue(subscriber.recovered)
            self.assertEqual([len(data) for data in subscriber.datas], [len(data) for data in datas])
            subscriber.disconnect()


class SinceSseResumeTests(ResumeRules, DaemonTests):
    """The rules over Server-Sent Events, with ``since``."""

    kind = SseSubscriber


class LastEventIdSseResumeTests(ResumeRules, DaemonTests):
    """The rules over Server-Sent Events, with ``Last-Event-ID``."""

    kind = ReturningSseSubscriber


class JsonSseResumeTests(ResumeRules, DaemonTests):
    """The rules over Server-Sent Events with ``format=json``."""

    kind = SseJsonSubscriber


class StreamResumeTests(ResumeRules, DaemonTests):
    """The rules over the NDJSON stream."""

    kind = StreamSubscriber


class JsonWebSocketResumeTests(ResumeRules, DaemonTests):
    """The rules over WebSocket with JSON messages, subscribed by the query."""

    kind = JsonSubscriber


class AskingJsonWebSocketResumeTests(ResumeRules, DaemonTests):
    """The rules over WebSocket with JSON messages, subscribed by them."""

    kind = AskingJsonSubscriber


class RawWebSocketResumeTests(ResumeRules, DaemonTests):
    """The rules over WebSocket with the bare data."""

    kind = RawSubscriber


class PollResumeTests(ResumeRules, DaemonTests):
    """The rules over long polling."""

    kind = PollSubscriber


class PushResumeTests(ResumeRules, DaemonTests):
    """The rules over server push."""

    http = Http2Client
    kind = PushSubscriber


class JsonWebSocketOverHttp2ResumeTests(ResumeRules, DaemonTests):
    """The rules over WebSocket over HTTP/2 with JSON messages."""

    kind = JsonTunnelSubscriber
