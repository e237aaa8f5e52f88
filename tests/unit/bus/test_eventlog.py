"""The log: offsets, positions, retention, publisher ids, and the limit of channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.event import Entry
from pushd.bus.eventlog import EventLog, LogState
from pushd.bus.partitioned_dict import PartitionedDict
from pushd.bus.patterns import check_name
from pushd.bus.position import HistoryPage, StartPosition
from pushd.bus.storage import MemoryStorage, PublishedId, names_with
from pushd.bus.work import drain
from pushd.errors import BadRequest, NotFound, Unavailable, Unprocessable
from tests.rigs.builders import EPOCH, STARTED, Kept, datas, draft, offsets, patterns
from tests.rigs.calls import calls_of

HOUR = 3600.0


class LogCase(SynchronousTestCase):
    """A log whose channels keep 3 events for an hour; those called ``none...`` keep nothing."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.kept = Kept(3, HOUR)
        self.archive = MemoryStorage()
        self.log = self.make_log(max_channels=1000)

    def make_log(self, *, max_channels: int) -> EventLog[str]:
        return EventLog(
            state=LogState(EPOCH),
            archive=self.archive,
            settings=lambda name: Kept(0) if name.startswith("none") else self.kept,
            now=lambda: STARTED + self.clock.seconds(),
            seconds=self.clock.seconds,
            max_channels=max_channels,
            max_bytes=1 << 40,
        )

    def append(self, *channels: str, data: bytes = b"x", id: str | None = None) -> list[Entry]:
        return self.log.append(draft(*channels, data=data, id=id))

    def append_each(self, channel: str, *each: bytes) -> list[str]:
        """Append several events; answer their ids."""
        return [self.append(channel, data=data)[0].event.id for data in each]

    def start(self, *texts: str, since: str) -> StartPosition:
        wanted = patterns(*texts)
        return drain(self.log.preparing(wanted, since, self.log.where(since, wanted))).start

    def read(self, *texts: str, since: str = "earliest", limit: int = 1000) -> HistoryPage:
        return self.log.read(patterns(*texts), since, limit)

    def assertKept(self, channel: str, *wanted: bytes) -> None:
        self.assertEqual(datas(self.read(channel).entries), list(wanted))

    def assertRead(self, page: HistoryPage, *wanted: bytes, recovered: bool) -> None:
        self.assertEqual((datas(page.entries), page.recovered), (list(wanted), recovered))

    def assertRecovered(self, *texts: str, since: str) -> None:
        self.assertTrue(self.start(*texts, since=since).recovered, (texts, since))

    def assertLost(self, *texts: str, since: str) -> None:
        self.assertFalse(self.start(*texts, since=since).recovered, (texts, since))

    def everything_seen(self) -> tuple[object, ...]:
        """Return all that can be seen of the log, to be compared with later."""
        page = self.read("**")
        return (self.log.position, sorted(self.log.names()), page.entries, page.position)


class AppendTests(LogCase):
    def test_an_event_says_what_was_published_and_when_and_where(self) -> None:
        self.append("a")
        self.clock.advance(2.5)
        (entry, other) = self.log.append(draft("b", "a", data=b"\xff", type="t"))
        event = entry.event
        self.assertIs(other.event, event)
        self.assertEqual((event.id, event.data), (f"{EPOCH}-2", b"\xff"))
        self.assertEqual((event.is_text, event.type), (False, "t"))
        self.assertEqual((event.time, event.sequence), (STARTED + 2.5, 2))
        self.assertEqual([(one.channel, one.offset) for one in (entry, other)], [("b", 1), ("a", 2)])

    def test_the_offsets_of_a_channel_have_no_holes(self) -> None:
        for number in range(10):
            self.append("a", "b") if number % 3 else self.append("b")
        self.assertEqual(offsets(self.append("a") + self.append("b")), [7, 11])

    def test_offsets_go_on_when_nothing_is_kept(self) -> None:
        self.assertEqual([self.append("none")[0].offset for _ in range(3)], [1, 2, 3])
        self.assertKept("none")

    def test_offsets_go_on_after_everything_has_expired_or_was_deleted(self) -> None:
        self.append("a")
        self.clock.advance(HOUR)
        self.assertKept("a")
        self.assertEqual(self.append("a")[0].offset, 2)
        self.log.clear(self.log.existing("a"))
        self.assertEqual(self.append("a")[0].offset, 3)

    def test_the_position_is_after_all_that_was_published(self) -> None:
        self.assertEqual(self.log.position, f"{EPOCH}-0")
        self.append("a")
        self.append("none", id="given")
        self.assertEqual(self.log.position, f"{EPOCH}-2")


class RetentionTests(LogCase):
    def test_a_channel_keeps_its_latest_events_up_to_its_size(self) -> None:
        self.append_each("a", b"1", b"2", b"3", b"4", b"5")
        self.append_each("b", b"6")
        self.assertKept("a", b"3", b"4", b"5")
        self.assertKept("b", b"6")

    def test_a_channel_keeps_an_event_for_its_age_and_not_longer(self) -> None:
        self.append_each("a", b"1")
        self.clock.advance(HOUR - 1)
        self.append_each("a", b"2")
        self.assertKept("a", b"1", b"2")
        self.clock.advance(1)
        self.assertKept("a", b"2")

    def test_expire_drops_what_is_too_old_though_nobody_reads_it(self) -> None:
        self.append("a", "b")
        self.clock.advance(HOUR - 1)
        self.log.expire()
        self.assertEqual(self.histories(), {"a": 1, "b": 1})
        self.append("b")
        self.clock.advance(1)
        self.log.expire()
        self.assertEqual(self.histories(), {"a": 0, "b": 1})
        self.clock.advance(HOUR)
        self.log.expire()
        self.assertEqual(self.histories(), {"a": 0, "b": 0})
        self.assertEqual(len(self.log._retention_queue._expiries), 0)

    def histories(self) -> dict[str, int]:
        return {name: len(channel.history) for name, channel in self.log.by_name.items()}

    def test_emptied_and_filled_again_a_channel_still_expires(self) -> None:
        self.append("a")
        self.clock.advance(HOUR)
        self.log.expire()
        self.append("a")
        self.clock.advance(HOUR)
        self.log.expire()
        self.assertEqual(self.histories(), {"a": 0})

    def test_a_channel_has_one_expiry_however_often_it_was_emptied(self) -> None:
        for _ in range(50):
            self.append("a")
            self.log.clear(self.log.existing("a"))
        self.append("a")
        self.clock.advance(HOUR / 2)
        self.append("a")
        self.clock.advance(HOUR / 2)
        self.log.expire()
        self.assertEqual(self.histories(), {"a": 1})
        self.assertEqual(len(self.log._retention_queue._expiries), 1)

    def test_clear_drops_everything_of_one_channel(self) -> None:
        self.append("a", "b", data=b"1")
        self.log.clear(self.log.existing("a"))
        self.assertKept("a")
        self.assertKept("b", b"1")

    def test_there_is_no_channel_that_was_never_used(self) -> None:
        self.assertRaises(NotFound, self.log.existing, "a")
        self.assertRaises(BadRequest, self.log.existing, "a/*")
        self.read("a", "b/*")
        self.assertEqual((len(self.log), list(self.log.names())), (0, []))


class PositionTests(LogCase):
    def test_latest_is_the_end_and_nothing_is_missing(self) -> None:
        self.append_each("a", b"1", b"2", b"3", b"4")
        self.assertEqual(self.start("a", since="latest"), StartPosition(f"{EPOCH}-4", True, 4))
        self.assertRead(self.read("a", since="latest"), recovered=True)

    def test_earliest_is_everything_that_is_kept_and_nothing_is_missing(self) -> None:
        self.append_each("a", b"1", b"2", b"3", b"4")
        self.assertRead(self.read("a", since="earliest"), b"2", b"3", b"4", recovered=True)
        self.assertRead(self.read("*", since="earliest"), b"2", b"3", b"4", recovered=True)

    def test_an_id_that_is_kept_is_a_position(self) -> None:
        first, second, third = self.append_each("a", b"1", b"2", b"3")
        self.assertRead(self.read("a", since=first), b"2", b"3", recovered=True)
        self.assertRead(self.read("a", since=third), recovered=True)
        self.assertEqual(self.start("a", since=second), StartPosition(second, True, 2))

    def test_an_id_that_was_dropped_is_a_position_still(self) -> None:
        ids = self.append_each("a", b"1", b"2", b"3", b"4", b"5")
        self.assertRead(self.read("a", since=ids[1]), b"3", b"4", b"5", recovered=True)
        self.assertRead(self.read("a", since=ids[0]), b"3", b"4", b"5", recovered=False)

    def test_the_beginning_of_the_log_is_a_position(self) -> None:
        self.append_each("a", b"1", b"2", b"3")
        self.assertRead(self.read("a", since=f"{EPOCH}-0"), b"1", b"2", b"3", recovered=True)
        self.append_each("a", b"4")
        self.assertRead(self.read("a", since=f"{EPOCH}-0"), b"2", b"3", b"4", recovered=False)

    def test_the_id_of_another_channel_is_a_position(self) -> None:
        self.append_each("a", b"1")
        (other,) = self.append_each("b", b"2")
        self.append_each("a", b"3")
        self.assertRead(self.read("a", since=other), b"3", recovered=True)

    def test_what_other_channels_lost_does_not_matter(self) -> None:
        (first,) = self.append_each("a", b"1")
        self.append_each("b", b"1", b"2", b"3", b"4")
        self.assertRecovered("a", since=first)
        self.assertLost("b", since=first)
        self.assertLost("a", "b", since=first)
        self.assertLost("*", since=first)

    def test_an_id_given_by_a_publisher_is_a_position_while_it_is_kept(self) -> None:
        self.append("a", data=b"1", id="given")
        self.append_each("a", b"2")
        self.assertEqual(self.start("a", since="given"), StartPosition(f"{EPOCH}-1", True, 1))
        self.assertRead(self.read("a", since="given"), b"2", recovered=True)
        self.append_each("a", b"3", b"4")
        self.assertRead(self.read("a", since="given"), b"2", b"3", b"4", recovered=False)

    def test_an_unknown_id_is_answered_with_everything_and_says_so(self) -> None:
        self.append_each("a", b"1", b"2")
        for since in ("no such id", "", "\ud800", f"{EPOCH}-", f"{EPOCH}--1", f"{EPOCH}-01", "Latest"):
            self.assertRead(self.read("a", since=since), b"1", b"2", recovered=False)

    def test_an_id_of_another_epoch_is_unknown(self) -> None:
        self.append_each("a", b"1", b"2")
        self.assertRead(self.read("a", since="abcdefghij-1"), b"1", b"2", recovered=False)

    def test_a_position_in_the_future_is_unknown(self) -> None:
        self.append_each("a", b"1", b"2")
        for sequence in (3, 10**18, 10**30):
            self.assertRead(self.read("a", since=f"{EPOCH}-{sequence}"), b"1", b"2", recovered=False)

    def test_an_unknown_id_is_unknown_on_an_empty_channel_too(self) -> None:
        for texts in (("a",), ("a/*",), ("a", "**")):
            self.assertRead(self.read(*texts, since="no such id"), recovered=False)
            self.assertRead(self.read(*texts, since="earliest"), recovered=True)

    def test_a_channel_that_keeps_nothing_answers_positions_truthfully(self) -> None:
        (first,) = self.append("none")
        self.assertRecovered("none", since=first.event.id)
        self.assertLost("none", since=f"{EPOCH}-0")
        self.assertLost("n*/**", "*", since=f"{EPOCH}-0")
        self.append("a")
        self.assertRecovered("none", since=first.event.id)
        self.append("none")
        self.assertLost("none", since=first.event.id)
        self.assertLost("**", since=first.event.id)
        self.assertRecovered("none", since=self.log.position)

    def test_what_has_expired_is_missed_whether_or_not_it_was_dropped_yet(self) -> None:
        first, second = self.append_each("a", b"1", b"2")
        self.clock.advance(HOUR)
        self.assertLost("a", since=first)
        self.assertLost("*", since=first)
        self.assertRecovered("a", since=second)

    def test_what_was_deleted_is_missed(self) -> None:
        first, second = self.append_each("a", b"1", b"2")
        self.log.clear(self.log.existing("a"))
        self.assertLost("a", since=first)
        self.assertRecovered("a", since=second)

    def test_positions_where_only_expired_events_follow_do_not_hide_older_channels(self) -> None:
        self.kept.history_age_s = 10
        self.append_each("a", b"1")
        self.append_each("b", b"2")
        (third,) = self.append_each("c", b"3")
        self.assertRead(self.read("**", since=f"{EPOCH}-0"), b"1", b"2", b"3", recovered=True)
        self.clock.advance(5)
        self.append_each("a", b"4")
        self.clock.advance(5)
        self.assertRead(self.read("**", since=third), b"4", recovered=True)
        self.assertRead(self.read("**", since=f"{EPOCH}-1"), b"4", recovered=False)

    def test_nothing_expires_between_the_answer_and_the_events(self) -> None:
        """A clock that moves on by itself must not lose an event of which it was said that it is coming."""
        for age_s in (20, 21, 22, 23):
            self.kept.history_age_s = age_s
            seconds = iter(range(10_000))
            log: EventLog[str] = EventLog(
                state=LogState(EPOCH),
                archive=MemoryStorage(),
                settings=lambda name: self.kept,
                now=self.clock.seconds,
                seconds=lambda seconds=seconds: float(next(seconds)),  # type: ignore[misc]
                max_channels=10,
                max_bytes=1 << 40,
            )
            log.append(draft("a"))
            for _ in range(30):
                page = log.read(patterns("a"), f"{EPOCH}-0", 10)
                self.assertEqual(len(page.entries), 1 if page.recovered else 0, age_s)


class ReadTests(LogCase):
    def test_pages_follow_each_other_without_a_gap_or_a_duplicate(self) -> None:
        self.kept.history_size = 100
        for number in range(20):
            channels = [("a",), ("b",), ("a", "b"), ("b", "a", "c")][number % 4]
            self.append(*channels, data=b"%d" % number)
        for limit in (1, 2, 3, 7, 20, 21):
            since, found = f"{EPOCH}-0", list[bytes]()
            for _ in range(30):
                page = self.read("a", "b", "**", since=since, limit=limit)
                self.assertTrue(page.recovered)
                self.assertLessEqual(len(page.entries), limit)
                found += datas(page.entries)
                since = page.position
            self.assertEqual(found, [b"%d" % number for number in range(20)], limit)

    def test_the_last_page_has_the_position_of_the_whole_log(self) -> None:
        self.append_each("a", b"1", b"2")
        self.append_each("b", b"3")
        self.assertEqual(self.read("a", limit=2).position, f"{EPOCH}-3")
        self.assertEqual(self.read("a", limit=1).position, f"{EPOCH}-1")

    def test_a_page_that_ends_before_an_event_with_a_given_id_can_be_gone_on_from(self) -> None:
        self.append("a", data=b"1", id="one")
        self.append("a", data=b"2", id="two")
        page = self.read("a", limit=1)
        self.assertRead(self.read("a", since=page.position), b"2", recovered=True)

    def test_an_event_of_several_channels_is_read_once(self) -> None:
        self.append("a", "b", "c", data=b"1")
        self.assertRead(self.read("a", "b", "*"), b"1", recovered=True)

    def test_one_event_is_found_by_its_id_in_each_of_its_channels(self) -> None:
        made = self.append("a", "b")
        given = self.append("a", "b", id="given")
        for entry in (*made, *given):
            self.assertIs(self.log.event(entry.channel, entry.event.id), entry)

    def test_an_event_is_not_found_where_it_is_not(self) -> None:
        self.append_each("a", b"1", b"2", b"3", b"4")
        self.append("a", id="given")
        self.append("b")
        for channel, event_id in (
            ("b", "given"),
            ("b", f"{EPOCH}-3"),
            ("a", f"{EPOCH}-1"),
            ("a", f"{EPOCH}-5"),
            ("a", f"{EPOCH}-9"),
            ("a", f"{EPOCH}-0"),
            ("a", "latest"),
            ("c", f"{EPOCH}-1"),
        ):
            self.assertRaises(NotFound, self.log.event, channel, event_id)

    def test_an_event_that_expired_is_not_found(self) -> None:
        self.append("a", id="given")
        self.clock.advance(HOUR)
        self.assertRaises(NotFound, self.log.event, "a", "given")
        self.assertRaises(NotFound, self.log.event, "a", f"{EPOCH}-1")


class GivenIdTests(LogCase):
    """Ids that publishers gave: each belongs to the first channel of its event."""

    def assertKnown(self, event_id: str, *channels: str) -> PublishedId:
        given = self.log.published_before(draft(*channels, id=event_id))
        assert given is not None, event_id
        return given

    def assertFree(self, event_id: str, *channels: str) -> None:
        self.assertIsNone(self.log.published_before(draft(*channels, id=event_id)))

    def test_an_id_that_is_kept_is_known(self) -> None:
        (entry,) = self.append("a", id="given")
        given = self.assertKnown("given", "a")
        self.assertEqual(
            (given.channel, given.offset, given.sequence, given.is_first), ("a", 1, entry.event.sequence, True)
        )
        self.assertFree("other", "a")

    def test_an_event_without_a_given_id_was_never_published_before(self) -> None:
        self.append("a")
        self.assertIsNone(self.log.published_before(draft("a")))

    def test_an_id_is_free_in_every_channel_that_was_not_the_first(self) -> None:
        self.append("a", "b", id="given")
        self.assertFree("given", "c")
        self.assertFree("given", "b")
        self.assertFree("given", "b", "a")
        self.assertKnown("given", "a", "b")

    def test_an_id_of_another_event_is_refused(self) -> None:
        self.append("a", "b", data=b"1", id="given")
        for other in (
            draft("a", "b", data=b"2", id="given"),
            draft("a", data=b"1", id="given"),
            draft("a", "b", "c", data=b"1", id="given"),
            draft("a", "b", data=b"1", id="given", type="t"),
        ):
            error = self.assertRaises(Unprocessable, self.log.published_before, other)
            self.assertEqual((error.status, error.field), (422, "id"))

    def test_an_id_is_free_again_once_its_event_is_dropped_by_count(self) -> None:
        self.append("a", id="given")
        self.append_each("a", b"2", b"3")
        self.assertKnown("given", "a")
        self.append_each("a", b"4")
        self.assertFree("given", "a")
        self.assertEqual(self.archive._given, {})

    def test_an_id_is_free_again_once_its_event_is_too_old(self) -> None:
        self.append("a", id="given")
        self.clock.advance(HOUR - 1)
        self.assertKnown("given", "a")
        self.clock.advance(1)
        self.assertFree("given", "a")
        self.assertEqual(self.archive._given, {})

    def test_an_id_is_free_again_once_its_event_is_deleted(self) -> None:
        self.append("a", id="given")
        self.log.clear(self.log.existing("a"))
        self.assertFree("given", "a")

    def test_an_id_that_no_channel_keeps_is_free_at_once(self) -> None:
        self.append("none", "none2", id="given")
        self.assertFree("given", "none", "none2")
        self.assertEqual(self.archive._given, {})

    def test_an_id_is_known_until_the_first_channel_drops_its_event_and_a_position_where_it_is_kept(self) -> None:
        self.append("a", "none", "b", "c", id="given")
        for channel in ("b", "c"):
            self.assertRecovered("c", since="given")
            self.assertKnown("given", "a", "none", "b", "c")
            self.log.clear(self.log.existing(channel))
            self.assertLost(channel, since="given")
        self.assertKnown("given", "a", "none", "b", "c")
        self.log.clear(self.log.existing("a"))
        self.assertFree("given", "a")
        self.assertEqual(self.archive._given, {})

    def test_where_the_first_channel_has_dropped_it_others_have_its_id_as_a_position_and_by_itself(self) -> None:
        self.append("none", "b", data=b"1", id="given")
        self.assertFree("given", "none", "b")
        self.assertRecovered("b", since="given")
        self.assertEqual(self.log.event("b", "given").event.data, b"1")

    def test_an_id_used_again_is_that_of_the_new_event(self) -> None:
        self.append("a", data=b"old", id="given")
        self.clock.advance(HOUR)
        self.append("a", data=b"new", id="given")
        self.append("a")
        self.assertEqual(self.log.event("a", "given").event.data, b"new")
        self.assertRead(self.read("a", since="given"), b"x", recovered=True)

    def test_an_event_by_its_id_is_the_one_that_was_published_to_the_channel_first(self) -> None:
        self.append("x", "a", data=b"1", id="given")
        self.append("y", "a", data=b"2", id="given")
        self.assertEqual(self.log.event("a", "given").event.data, b"1")
        self.append("a", data=b"3", id="given")
        self.assertEqual(self.log.event("a", "given").event.data, b"3")


class GivenPositionTests(LogCase):
    """Given ids as positions: only those who read their channels know them."""

    def test_an_id_is_a_position_where_its_event_is_and_nowhere_else(self) -> None:
        self.append("a", "b/c", id="given")
        for texts in (("a",), ("b/c",), ("a", "z"), ("b/*",), ("**",), ("z", "b/**"), ("*",), ("**/c",)):
            self.assertRecovered(*texts, since="given")
        for texts in (("b",), ("z",), ("b/*/d",), ("a/*",), ("b/d",), ("**/d",)):
            self.assertLost(*texts, since="given")

    def test_what_is_not_read_changes_nothing_of_what_is_told(self) -> None:
        """The log is the same to a reader of ``a`` and ``p/*``, whatever ids there are in other channels."""
        self.append_each("a", b"1", b"2")
        self.append("p/q", id="mine")
        self.append("secret")
        before = [self.start(text, since=since) for text in ("a", "p/*") for since in ("theirs", "mine")]
        positions = [start.sequence for start in before]
        for channel in ("secret", "secret/a", "p", "pp/q", "p/q/r"):
            self.append(channel, id="theirs")
            self.append(channel, id="mine")
        after = [self.start(text, since=since) for text in ("a", "p/*") for since in ("theirs", "mine")]
        self.assertEqual([start.recovered for start in after], [start.recovered for start in before])
        self.assertEqual([start.sequence for start in after], positions)

    def test_of_several_events_with_one_id_the_oldest_is_where_a_reader_begins(self) -> None:
        self.append("x", "a", data=b"1", id="given")
        self.append("a", data=b"2")
        self.append("y", "a", data=b"3", id="given")
        self.assertRead(self.read("a", since="given"), b"2", b"3", recovered=True)
        self.assertRead(self.read("x", "y", since="given"), b"3", recovered=True)
        self.assertRead(self.read("*", since="given"), b"2", b"3", recovered=True)
        self.assertRead(self.read("y", since="given"), recovered=True)

    def test_others_cannot_make_an_id_unknown_to_those_who_do_not_read_their_channels(self) -> None:
        self.log = self.make_log(max_channels=10_000)
        self.append("bank/a", id="order")
        for number in range(3000):
            self.append(f"evil/{number}", id="order")
        for text in ("bank/a", "bank/*", "bank/**"):
            self.assertRecovered(text, since="order")
        self.assertLost("evil/*", since="order")  # so many that nobody looks at each

    def test_channels_of_patterns_are_found_among_many_as_among_few(self) -> None:
        self.log = self.make_log(max_channels=10_000)
        names = [f"{first}/{second}" for first in ("a", "b", "ü") for second in range(30)]
        for count, name in enumerate(names):
            self.append(name, id="order")
            for text in ("a/*", "b/**", "ü/*", "ü/*/x", "*/29"):
                wanted = [one for one in names[: count + 1] if patterns(text)[0].matches(one)]
                with self.subTest(count=count, text=text):
                    self.assertEqual(set(names_with(self.archive, "order", patterns(text))), set(wanted))
        for name in names:
            self.log.clear(self.log.existing(name))
            self.assertLost(name, since="order")
        self.assertEqual(self.archive._given, {})

    def test_however_many_patterns_there_are_few_channels_are_looked_at(self) -> None:
        self.log = self.make_log(max_channels=10_000)
        for number in range(600):
            self.append(f"p/{number}", f"p/{number}/x", id="order")
        looked: list[str] = []
        given = self.archive.given
        self.archive.given = lambda name, *rest: (looked.append(name), given(name, *rest))[1]  # type: ignore
        for texts in (["p/*", "p/*/x"], ["p/**"], ["**"], [f"p/{number}/*" for number in range(100)]):
            looked.clear()
            self.start(*texts, since="order")
            self.assertLessEqual(len(looked), 500)

    def test_a_name_costs_one_look_however_many_channels_have_the_id(self) -> None:
        self.append("a", id="given")
        looked: list[str] = []
        given = self.archive.given
        self.archive.given = lambda name, *rest: (looked.append(name), given(name, *rest))[1]  # type: ignore
        for number in range(500):
            self.append(f"other/{number}", id="given")
        looked.clear()
        self.assertRecovered("a", since="given")
        self.log.event("a", "given")
        self.assertKnownByLooks(looked, "a", "a")

    def assertKnownByLooks(self, looked: list[str], *wanted: str) -> None:
        self.assertEqual(looked, list(wanted))


class LimitTests(LogCase):
    """Three channels at most."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = MemoryStorage()
        self.log = self.make_log(max_channels=3)

    def names(self) -> list[str]:
        return sorted(self.log.names())

    def test_the_entries_of_a_channel_that_was_given_up_are_in_no_history(self) -> None:
        one = self.append("none1")[0]
        for name in ("none2", "none3", "none4"):
            self.append(name)
        self.assertIs(self.log.get("none1"), None)
        self.assertIs(self.log.history_with(one), None)

    def test_a_channel_that_is_given_up_while_settings_change_in_steps_does_no_harm(self) -> None:
        for name in ("none3", "none2", "none1"):
            self.append(name)
        kept = Kept(1, HOUR)
        work = self.log.configuring(lambda name: kept, max_channels=3, max_bytes=1 << 40)
        next(work)
        self.append("none4")
        self.assertEqual(sorted(self.log.names()), ["none1", "none2", "none4"])
        drain(work)
        self.assertTrue(all(self.log.by_name[name].settings is kept for name in self.log.names()))

    def test_over_the_limit_a_new_channel_is_refused_and_nothing_has_changed(self) -> None:
        for name in "abc":
            self.append(name, data=name.encode())
        before = self.everything_seen()
        for channels in (("d",), ("a", "d"), ("d", "e", "f", "g")):
            self.assertRaises(Unavailable, self.append, *channels, id="given")
            self.assertEqual(self.everything_seen(), before)
        self.assertEqual(self.archive._given, {})
        self.append("a", "b", "c")

    def test_more_channels_at_once_than_there_may_be_are_refused(self) -> None:
        self.assertRaises(Unavailable, self.append, "a", "b", "c", "d")
        self.assertEqual((self.names(), self.log.position), ([], f"{EPOCH}-0"))

    def test_idle_channels_are_given_up_first_those_idle_for_longest_before_the_others(self) -> None:
        for name in "abc":
            self.append(name)
        for name in "bca":
            self.log.clear(self.log.existing(name))
        self.append("d")
        self.assertEqual(self.names(), ["a", "c", "d"])
        self.append("e")
        self.assertEqual(self.names(), ["a", "d", "e"])

    def test_a_channel_that_is_written_to_itself_is_not_given_up_for_it(self) -> None:
        for name in ("none1", "none2", "none3"):
            self.append(name)
        self.append("d", "none1", "none2")
        self.assertEqual(self.names(), ["d", "none1", "none2"])

    def test_making_room_for_a_name_costs_the_same_however_many_channels_there_are(self) -> None:
        costs = []
        for most in (100, 10_000):
            self.log = self.make_log(max_channels=most)
            for number in range(most):
                self.append(f"none{number}")
            for number in range(most // 2):
                self.append(f"other{number}")
            check_name.cache_clear()
            costs.append(calls_of(lambda: self.append("new")))
            self.assertEqual(len(self.log), most)
        self.assertLessEqual(costs[1], costs[0])

    def test_to_make_room_for_a_name_little_of_what_has_expired_is_dropped(self) -> None:
        for most in (300, 3000):
            self.log = self.make_log(max_channels=most)
            for number in range(most):
                self.append(f"c{number}")
            self.clock.advance(HOUR)
            self.append("new")
            self.assertLessEqual(len(self.log._idle), 3)
            self.assertEqual(len(self.log), most)

    def test_to_find_no_room_takes_few_steps(self) -> None:
        self.log = self.make_log(max_channels=1000)
        for number in range(1000):
            self.append(f"c{number}")
        self.clock.advance(HOUR)
        trimmed: list[str] = []
        self.patch(self.log._retention_queue, "_trim", lambda channel: trimmed.append(channel.name))
        self.assertRaises(Unavailable, self.append, "new")
        self.assertLessEqual(len(trimmed), 105)

    def test_names_are_looked_up_and_not_the_channels_walked(self) -> None:
        class Counted(PartitionedDict[str, Any]):
            walked = 0

            def __iter__(self) -> Iterator[str]:
                Counted.walked += 1
                return super().__iter__()

        counted = Counted()
        for number in range(3):
            self.append(f"none{number}")
        counted.update(self.log.by_name)
        self.log.by_name = counted
        for name in ("none4", "a", "b"):
            self.append(name)
            self.log.surplus(["x", "y"] if name == "none4" else ["x"])
        self.assertEqual(Counted.walked, 0)

    def test_a_channel_that_is_used_again_is_no_longer_idle(self) -> None:
        for name in "abc":
            self.append(name)
        self.log.clear(self.log.existing("a"))
        self.append("a")
        self.assertRaises(Unavailable, self.append, "d")

    def test_a_channel_that_was_given_up_never_gives_an_offset_twice(self) -> None:
        for _ in range(5):
            self.append("none1")
        self.append("none2")
        self.append("none3")
        self.append("d")
        self.assertNotIn("none1", self.names())
        self.assertGreater(self.append("none1")[0].offset, 5)
        self.assertGreater(self.append("none2")[0].offset, 1)

    def test_positions_before_a_channel_was_given_up_are_not_recovered(self) -> None:
        positions = [self.log.position]
        for name in ("none1", "none1", "none2", "none3", "d"):
            self.append(name)
            positions.append(self.log.position)
        self.assertNotIn("none1", self.names())
        self.assertLost("none1", since=positions[0])
        self.assertLost("none1", since=positions[1])
        self.assertLost("none*", "*", since=positions[1])
        self.assertRecovered("none1", since=positions[2])
        self.append("none1")
        self.assertLost("none1", since=positions[1])

    def test_after_many_were_given_up_the_highest_of_their_places_counts(self) -> None:
        self.archive = MemoryStorage()
        self.log = self.make_log(max_channels=1)
        for _ in range(4):
            self.append("none1")
        for name in ("none2", "none3"):
            self.append(name)
        self.assertLost("none1", since=f"{EPOCH}-3")
        self.assertRecovered("none1", since=self.log.position)
        self.assertGreater(self.append("none1")[0].offset, 4)

    def test_a_channel_that_stays_is_not_touched_by_what_is_given_up(self) -> None:
        (kept,) = self.append("a")
        self.append("none1")
        self.append("none2")
        self.append("d")
        self.assertRecovered("a", since=f"{EPOCH}-0")
        self.assertEqual(self.append("a")[0].offset, kept.offset + 1)

    def test_what_is_too_old_does_not_stand_in_the_way_of_a_new_channel(self) -> None:
        for name in "abc":
            self.append(name)
        self.clock.advance(HOUR)
        self.log.expire()
        self.append("d", "e", "f")
        self.assertEqual(self.names(), ["d", "e", "f"])
        self.assertEqual(len(self.log._idle), 0)
