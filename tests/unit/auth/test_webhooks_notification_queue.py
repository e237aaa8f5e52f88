"""The queue of notices: in order, bounded, and the noisiest loses first."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.webhooks.notification_queue import NotificationQueue


def taken(notices: NotificationQueue) -> list[bytes]:
    """Take all of them."""
    return [notices.take() for _ in range(len(notices))]


class NoticesTests(SynchronousTestCase):
    def test_they_come_out_in_order(self) -> None:
        notices = NotificationQueue(10, 100)
        for number in range(5):
            self.assertEqual(notices.add(b"%d" % number, f"owner {number % 2}"), 0)
        self.assertEqual((notices.next_size, taken(notices)), (1, [b"0", b"1", b"2", b"3", b"4"]))

    def test_an_owner_has_its_share_and_loses_its_own_oldest_beyond_it(self) -> None:
        notices = NotificationQueue(20, 25)
        notices.add(b"honest", "honest")
        self.assertEqual([notices.add(b"%d" % number, "noisy") for number in range(8)], [0] * 5 + [1] * 3)
        self.assertEqual(taken(notices), [b"honest", b"3", b"4", b"5", b"6", b"7"])

    def test_without_an_owner_there_is_no_share(self) -> None:
        notices = NotificationQueue(20, 25)
        self.assertEqual(sum(notices.add(b"x") for _ in range(20)), 0)

    def test_when_it_is_full_whoever_has_the_most_loses_its_oldest(self) -> None:
        notices = NotificationQueue(6, 100)
        for owner, count in (("a", 1), ("b", 3), (None, 2)):
            for number in range(count):
                notices.add(f"{owner}{number}".encode(), owner)
        self.assertEqual(notices.add(b"c0", "c"), 1)
        self.assertEqual(taken(notices), [b"a0", b"b1", b"b2", b"None0", b"None1", b"c0"])

    def test_an_opposite_that_waits_is_taken_back(self) -> None:
        notices = NotificationQueue(10, 100)
        notices.add(b"+a", "x", "a")
        notices.add(b"+b", "x", "b")
        self.assertTrue(notices.cancel("a"))
        self.assertFalse(notices.cancel("a"))
        self.assertFalse(notices.cancel("c"))
        notices.add(b"-c", "x", "c")
        self.assertEqual(notices.take(), b"+b")
        self.assertFalse(notices.cancel("b"))
        self.assertEqual(taken(notices), [b"-c"])

    def test_other_bounds_hold_for_what_comes(self) -> None:
        notices = NotificationQueue(10, 100)
        for number in range(10):
            notices.add(b"%d" % number, "a")
        notices.limit(10, 20)
        self.assertEqual(notices.add(b"10", "a"), 9)
        self.assertEqual(taken(notices), [b"9", b"10"])

    def test_when_all_are_gone_nothing_is_kept_of_their_owners(self) -> None:
        notices = NotificationQueue(100, 100)
        for number in range(100):
            notices.add(b"x", f"owner {number % 7}", number)
        notices.clear()
        kept = (notices._waiting, notices._of_owner, notices._by_count, notices._last_of_pair)
        self.assertEqual([len(one) for one in kept], [0] * 4)
        self.assertEqual(notices._shares.used, 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["a", "b", "c", None]), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.none(), st.integers(0, 3)),
        st.tuples(st.just("take"), st.none(), st.none()),
    ),
    max_size=80,
)


class ModelTests(SynchronousTestCase):
    @given(st.integers(1, 12), st.integers(1, 100), STEPS)
    def test_it_is_bounded_and_only_the_noisiest_lose(
        self, most: int, share: int, steps: list[tuple[str, str | None, int | None]]
    ) -> None:
        notices, model = NotificationQueue(most, share), list[tuple[bytes, str | None, int | None]]()
        share_of_one = max(1, most * share // 100)
        for number, (step, owner, pair) in enumerate(steps):
            if step == "add":
                while True:
                    counts = Counter(it[1] for it in model)
                    if owner is not None and counts[owner] >= share_of_one:
                        loser = owner
                    elif len(model) >= most:
                        loser = notices._heaviest()  # type: ignore[assignment]
                        self.assertEqual(counts[loser], max(counts.values()))
                    else:
                        break
                    model.remove(next(it for it in model if it[1] == loser))
                    break
                notices.add(b"%d" % number, owner, pair)
                model.append((b"%d" % number, owner, pair))
            elif step == "cancel":
                last = [it for it in model if it[2] == pair][-1:]
                was_there = notices.cancel(pair)
                if was_there:
                    self.assertEqual(len(last), 1)
                    model.remove(last[0])
            elif model:
                self.assertEqual(notices.take(), model.pop(0)[0])
            self.assertLessEqual(len(notices), most)
        self.assertEqual(taken(notices), [it[0] for it in model])
