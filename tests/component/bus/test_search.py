"""What a reader gets, found in steps between which anything may happen; and how many steps that takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from pushd.bus import search as finding
from pushd.bus.closing import CloseCause
from pushd.bus.grants import EVERYTHING
from pushd.bus.search import Prepared, key_of
from pushd.bus.subscription import Subscription
from pushd.bus.work import Work
from pushd.errors import NotFound, Unavailable
from tests.rigs.builders import EPOCH, BusRig, Client, Kept, a_caller, catch_up, patterns
from tests.rigs.effort import examples
from tests.rigs.stored import StoredBusRig, directory

CHANNELS = {
    "a": Kept(2, 10),
    "b": Kept(3, 5),
    "none": Kept(0, 10),
    **{f"{first}/{second}": Kept(4, 8) for first in "abc" for second in "xyz"},
}
TEXTS = (*CHANNELS, "**", "*", "a/*", "b/**", "*/x", "**/y", "c/**", "new")
ACTS = st.one_of(
    st.tuples(st.just("publish"), st.lists(st.sampled_from(sorted(CHANNELS)), min_size=1, max_size=2, unique=True)),
    st.tuples(st.just("delete"), st.sampled_from(sorted(CHANNELS))),
    st.tuples(st.just("wait"), st.integers(1, 6)),
)
READ_TEXTS = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2, unique=True)
SINCE = st.one_of(st.sampled_from(("earliest", "no such id")), st.integers(0, 25))


def small() -> ExitStack:
    """Make the bounds small, so that few channels take every way."""
    stack = ExitStack()
    for name, value in (("_AT_ONCE", 2), ("_OLDEST", 4), ("_NAMES", 2)):
        stack.enter_context(patch.object(finding, name, value))
    return stack


class World:
    """A bus, and all that was ever published."""

    def __init__(self, max_channels: int) -> None:
        self.rig = BusRig(kept=CHANNELS, max_channels=max_channels)
        self.facts: list[set[str]] = []

    def act(self, act: Any) -> None:
        kind, what = act
        if kind == "publish":
            try:
                self.rig.publish(*what)
            except Unavailable:
                return
            self.facts.append(set(what))
        elif kind == "delete":
            try:
                self.rig.bus.delete(what, EVERYTHING)
            except NotFound:
                return
        else:
            self.rig.clock.advance(what)
            self.rig.log.expire()

    def place(self, since: str | int) -> tuple[str, int | None]:
        """Return a position, and its place in the log, if it has one."""
        if isinstance(since, str):
            return since, None
        place = max(0, len(self.facts) - since)
        return f"{EPOCH}-{place}", place

    def matching(self, texts: list[str], after: int) -> set[int]:
        """Return the places of all events of channels that are matched."""
        wanted = patterns(*texts)
        return {
            sequence
            for sequence, channels in enumerate(self.facts, 1)
            if sequence > after and any(one.matches(name) for one in wanted for name in channels)
        }

    def retained(self, texts: list[str], after: int) -> set[int]:
        """Return those of them that are still there."""
        wanted, log = patterns(*texts), self.rig.log
        found = set()
        for name, channel in list(log.by_name.items()):
            log.trim(channel)
            if any(one.matches(name) for one in wanted):
                history: Any = channel.history
                found |= {entry.event.sequence for entry in history._entries[history._head :]}
        return {sequence for sequence in found if sequence > after}

    def has_lost(self, texts: list[str], after: int) -> bool:
        """Return whether a channel that is matched has dropped an event."""
        wanted = patterns(*texts)
        return any(
            sequence not in self.retained([name], after)
            for sequence, channels in enumerate(self.facts, 1)
            for name in channels
            if sequence > after and any(one.matches(name) for one in wanted)
        )

    def run(self, work: Work[Any], meanwhile: Iterator[list[Any]]) -> Any:
        """Do a work, with something happening after each step."""
        while True:
            try:
                next(work)
            except StopIteration as stop:
                return stop.value
            for act in next(meanwhile, []):
                self.act(act)


MEANWHILE = st.lists(st.lists(ACTS, max_size=2), max_size=40)


class InterleavedTests(TestCase):
    @examples(400)
    @given(st.lists(ACTS, max_size=40), READ_TEXTS, SINCE, st.integers(1, 5), MEANWHILE, st.sampled_from((5, 100)))
    def test_a_page_is_what_is_promised_whatever_happens_meanwhile(
        self, before: list[Any], texts: list[str], since: str | int, limit: int, meanwhile: Any, most: int
    ) -> None:
        world = World(most)
        for act in before:
            world.act(act)
        text, place = world.place(since)
        with small():
            page = world.run(world.rig.log.reading(patterns(*texts), text, limit), iter(meanwhile))
        got = [entry.event.sequence for entry in page.entries]
        end, after = int(page.position.rpartition("-")[2]), place or 0
        assert got == sorted(set(got))
        assert len(got) <= limit
        assert not got or got[-1] <= end
        wanted = {sequence for sequence in world.matching(texts, after) if sequence <= end}
        assert set(got) <= wanted
        there = {sequence for sequence in world.retained(texts, after) if sequence <= end}
        assert there <= set(got), "left out"
        assert got or end == len(world.facts), "a poll that waits from here would miss something"
        if since == "earliest":
            assert page.recovered
        elif place is None:
            assert not page.recovered
        elif page.recovered:
            assert set(got) == wanted, "skipped in silence"
        else:
            assert world.has_lost(texts, after) or world.rig.log.given_up_sequence > after

    @examples(400)
    @given(st.lists(ACTS, max_size=40), READ_TEXTS, SINCE, MEANWHILE, st.lists(ACTS, max_size=4))
    def test_what_is_prepared_for_a_subscriber_is_complete_when_it_subscribes(
        self, before: list[Any], texts: list[str], since: str | int, meanwhile: Any, after_it: list[Any]
    ) -> None:
        world = World(100)
        for act in before:
            world.act(act)
        (text, place), wanted, log = world.place(since), patterns(*texts), world.rig.log
        client, caller = Client(), a_caller()
        with small():
            prepared: Prepared = world.run(log.preparing(wanted, text, log.where(text, wanted)), iter(meanwhile))
        caller.prepared = {key_of(wanted, text): prepared}
        for act in after_it:
            world.act(act)
        subscription: Subscription = Subscription(world.rig.bus, client, caller)
        there = world.retained(texts, place or 0)
        start = subscription.add(wanted, text)
        assert caller.prepared == {}
        catch_up(subscription)
        for name in ("a", "c/x"):
            world.act(("publish", [name]))
        if client.causes:
            assert client.causes == [CloseCause.TOO_SLOW]
            return
        got = [entry.event.sequence for entry in client.entries]
        assert got == sorted(set(got))
        live = world.matching(texts, len(world.facts) - 2)
        assert there | live <= set(got)
        if since == "earliest":
            assert start.recovered
        elif place is None:
            assert not start.recovered
        elif start.recovered:
            assert set(got) == world.matching(texts, place)


def steps_of(work: Work[Any]) -> tuple[int, Any]:
    """Do a work; return how many steps it took, and its result."""
    steps = 0
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return steps, stop.value
        steps += 1


class CatchingUpTests(TestCase):
    """What is published while a reader is prepared is added in steps, too."""

    def test_little_is_left_to_be_added_at_once(self) -> None:
        rig = BusRig(max_channels=5000)
        names = [f"a/{number}" for number in range(3000)]
        for name in names:
            rig.publish(name)
        work = rig.log.preparing(patterns("**"), "earliest", None)
        for _ in range(10):
            next(work)
        for name in names:
            rig.publish(name)
        steps, prepared = 0, None
        try:
            while True:
                next(work)
                steps += 1
        except StopIteration as stop:
            prepared = stop.value
        assert prepared is not None
        self.assertGreater(steps, 4000)
        self.assertEqual(prepared.end, rig.log.sequence, "nothing is left to be added without steps")
        self.assertEqual(prepared.replay.width, 3000)
        count = 0
        while prepared.replay.next() is not None:
            count += 1
        self.assertEqual(count, 6000)


class CostTests(TestCase):
    """In steps, beside 20,000 channels of one event."""

    MANY = 20_000

    def both(self) -> Iterator[BusRig]:
        """Return a log in memory and one in a store, filled."""
        with directory() as path:
            for rig in (BusRig(max_channels=10**6), StoredBusRig(path, max_channels=10**6)):
                for number in range(0, self.MANY, 500):
                    self.fill(rig, [f"{one % 1000}/{one}" for one in range(number, number + 500)])
                yield rig
                if isinstance(rig, StoredBusRig):
                    rig.crash()
                    yield rig
                    rig.end()

    def fill(self, rig: BusRig, names: list[str]) -> None:
        """Publish an event to each of some channels."""
        if isinstance(rig, StoredBusRig):
            rig.publish_together(*[((name,), b"x", None) for name in names])
        else:
            for name in names:
                rig.publish(name)

    def test_a_page_costs_what_it_has_and_not_what_there_is(self) -> None:
        for rig in self.both():
            log = rig.log
            for texts, since, limit, most, count in (
                (("**",), "earliest", 1, 10, 1),
                (("**",), "earliest", 1000, 5000, 1000),
                (("*/*",), "earliest", 1, 10, 1),
                (("7/*",), "earliest", 5, 8000, 5),
                (("7/*",), log.position_of(0), 5, 1000, 5),
                (("7/**", "8/**"), log.position_of(10), 100, 2000, 38),
                (("7/7",), log.position_of(0), 5, 10, 1),
                (("**",), log.position_of(self.MANY - 100), 100, 1000, 100),
            ):
                steps, page = steps_of(log.reading(patterns(*texts), since, limit))
                self.assertEqual(len(page.entries), count, (texts, since))
                self.assertLessEqual(steps, most, (texts, since))

    def test_a_page_of_events_that_all_channels_have_is_cut_seldom(self) -> None:
        rig = BusRig(max_channels=10**6)
        for first in range(0, 4000, 100):
            names = [f"c/{number}" for number in range(first, first + 100)]
            for _ in range(2):
                rig.publish(*names)
        work = finding.prepare(rig.log, patterns("**"), rig.log.position_of(0), 0, 11)
        steps, prepared = steps_of(work)
        self.assertLessEqual(steps, 4000 * 4)
        self.assertEqual([one.event.sequence for one in iter(prepared.replay.next, None)][:11], list(range(1, 12)))

    def test_a_page_opens_few_histories_also_if_all_channels_match(self) -> None:
        rig = BusRig(max_channels=10**6)
        for number in range(5000):
            rig.publish(f"c/{number}")
        prepared: Prepared = steps_of(finding.prepare(rig.log, patterns("**"), rig.log.position_of(0), 0, 11))[1]
        self.assertLessEqual(prepared.replay.width, 4 * 11 + 64)
