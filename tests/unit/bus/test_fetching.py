"""Replays and reads whose entries are not in memory: nothing is read before they arrive, and nothing is skipped."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause
from pushd.bus.grants import EVERYTHING
from pushd.bus.replaying import Done
from pushd.bus.work import NotInMemory, Work, drain, when_here
from pushd.errors import Unavailable
from tests.rigs.builders import BusRig, Kept, catch_up, datas, patterns
from tests.rigs.far_history import FarStorage


class FarTestCase(SynchronousTestCase):
    """A bus whose jobs are done when the test says so: `begin` runs one up to what it waits for."""

    def setUp(self) -> None:
        self.rig = BusRig(kept={"latest": Kept(on_overflow="latest"), "few": Kept(3)})
        self.rig.archive = self.far = FarStorage()
        self.rig.begin(self.far)
        self.jobs: list[tuple[Work[None], Callable[[], bool], Done]] = []
        self.rig.bus.do_later = self.do_later

    def do_later(self, work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
        self.jobs.append((work, is_gone, done))

    def go_on(self, error: Unavailable | None = None) -> None:
        """Run the first job until it waits, and let what it waits for arrive, until the job is done."""
        work, is_gone, done = self.jobs.pop(0)
        try:
            missing = next(work)
            while True:
                if missing is None:
                    missing = next(work)
                elif error is not None:
                    missing = work.throw(error)
                else:
                    missing.fetch(None, is_gone, lambda error: None)
                    self.far.awaited.pop()(None)
                    missing = next(work)
        except StopIteration:
            done(None)


class ReplayTests(FarTestCase):
    def test_a_replay_waits_for_each_group_of_entries_and_is_then_read_on(self) -> None:
        self.rig.publish_each("a", *[b"%d" % number for number in range(10)])
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        flushed: list[int] = []
        for waits in range(1, 4):
            catch_up(subscription)
            self.assertEqual(len(client.entries), 3 * (waits - 1))
            self.assertEqual((subscription.is_readable, subscription.is_replaying), (False, True))
            self.assertEqual((subscription.advance(), subscription.advance_run(100)), (False, []))
            self.assertTrue(subscription.when_tidy(lambda: flushed.append(len(client.entries))))
            self.go_on()
            self.assertTrue(subscription.is_readable)
        catch_up(subscription)
        self.assertEqual(client.datas, [b"%d" % number for number in range(10)])
        self.assertEqual((flushed, self.jobs, subscription.is_replaying), ([0, 3, 6], [], False))

    def test_an_entry_that_arrived_is_kept_although_others_take_its_place_in_memory(self) -> None:
        self.rig.publish_each("a", b"1", b"2", b"3", b"4")
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        for _ in range(3):
            catch_up(subscription)
            self.go_on()
            self.far.here.clear()
            subscription.advance()
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1", b"2", b"3", b"4"])

    def test_without_a_reactor_entries_are_loaded_at_once(self) -> None:
        rig = BusRig()
        rig.archive = far = FarStorage()
        rig.begin(far)
        rig.publish_each("a", b"1", b"2", b"3", b"4", b"5")
        self.assertEqual(rig.caught_up("a", since="earliest")[0].datas, [b"1", b"2", b"3", b"4", b"5"])
        self.assertEqual(far.loads, 2)

    def test_events_published_while_it_waits_come_after_it(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        client, subscription, _ = self.rig.subscribe("a", "b", since="earliest")
        self.assertFalse(subscription.advance())
        self.rig.publish("b", data=b"live")
        self.go_on()
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1", b"2", b"live"])

    def test_what_is_dropped_while_it_waits_ends_it_unless_it_may_be_missed(self) -> None:
        for name, causes, wanted in (("few", [CloseCause.TOO_SLOW], []), ("latest", [], [b"3", b"4"])):
            self.rig.publish_each(name, b"1", b"2")
            client, subscription, _ = self.rig.subscribe(name, since="earliest")
            self.assertFalse(subscription.advance())
            channel = self.rig.log.by_name[name]
            self.rig.publish_each(name, b"3", b"4")
            while len(channel.history) > 1:
                channel.history.drop()
            self.go_on()
            catch_up(subscription)
            self.assertEqual((client.causes, client.datas), (causes, wanted), name)

    def test_entries_that_cannot_be_read_end_it_with_the_reason(self) -> None:
        self.rig.publish_each("a", b"1", b"2", b"3", b"4", b"5")
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        catch_up(subscription)
        self.go_on()
        catch_up(subscription)
        self.go_on(Unavailable("the disk is gone"))
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1", b"2", b"3"])
        self.assertEqual(
            [(one.cause, one.text) for one in client.reasons], [(CloseCause.FAILED, "the disk is gone")]
        )
        self.assertEqual(self.rig.failed, [])

    def test_it_may_end_lose_channels_and_get_others_while_it_waits(self) -> None:
        self.rig.publish_each("a", b"a1", b"a2")
        self.rig.publish_each("b", b"b1", b"b2")
        for change, wanted in (
            (lambda one: one.close(), []),
            (lambda one: one.remove("a"), [b"b1", b"b2"]),
            (lambda one: one.add(patterns("few"), "latest"), [b"a1", b"a2", b"b1", b"b2"]),
            (lambda one: one.add(patterns("a"), "earliest"), [b"a1", b"a2", b"b1", b"b2"]),
        ):
            client, subscription, _ = self.rig.subscribe("a", "b", since="earliest")
            self.assertFalse(subscription.advance())
            change(subscription)
            while self.jobs:
                self.go_on()
                catch_up(subscription)
            self.assertEqual(client.datas, wanted)
            self.assertFalse(subscription.is_replaying)
            self.far.here.clear()


class ReadTests(FarTestCase):
    def test_a_page_an_event_and_a_state_wait_for_what_they_show(self) -> None:
        self.rig.publish("a", data=b"0", id="given")
        self.rig.publish_each("a", b"1", b"2", b"3")
        self.rig.publish("b", data=b"4")
        bus = self.rig.bus
        page = drain(bus.reading(patterns("a", "b"), "given", 10, EVERYTHING))
        self.assertEqual((datas(page.entries), page.recovered), ([b"1", b"2", b"3", b"4"], True))
        loads = self.far.loads
        self.far.here.clear()
        self.assertEqual(drain(bus.finding("a", "given", EVERYTHING)).event.data, b"0")
        self.far.here.clear()
        state = drain(bus.showing("a", EVERYTHING))
        assert state.oldest is not None
        self.assertEqual(state.oldest.event.data, b"0")
        self.assertEqual(self.far.loads, loads + 2)

    def test_a_page_from_the_earliest_is_in_order_whatever_arrives_first(self) -> None:
        for number in range(30):
            self.rig.publish(f"x/{number % 7}", data=b"%d" % number)
        self.rig.log._retention_queue.max_bytes = 1  # so that channels have lower bounds only
        for limit in (1, 5, 100):
            self.far.here.clear()
            page = self.rig.read("x/*", limit=limit)
            sequences = [entry.event.sequence for entry in page.entries]
            self.assertEqual(sequences, sorted(sequences)[:limit])

    def test_a_channel_deleted_while_its_first_entry_is_fetched_adds_nothing(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        self.rig.publish_each("b", b"3", b"4")
        work = self.rig.bus.reading(patterns("a", "b"), "earliest", 10, EVERYTHING)
        missing: NotInMemory | None = None
        while missing is None:
            missing = next(work)
        self.rig.bus.delete("a", EVERYTHING)
        missing.load()
        page = drain(work)
        self.assertEqual(datas(page.entries), [b"3", b"4"])

    def test_a_read_that_cannot_be_made_fails_with_the_reason(self) -> None:
        def load() -> None:
            raise Unavailable("the disk is gone")

        def read() -> None:
            raise NotInMemory("a", False, load, lambda owner, is_gone, done: None)

        error = self.assertRaises(Unavailable, drain, when_here(read))
        self.assertEqual(error.detail, "the disk is gone")
