"""The ledger of the crash test: that it finds each kind of fault, and none where there is none."""

from __future__ import annotations

from unittest import TestCase

from tests.rigs.ledger import Ledger, Seen, View

CHANNEL = "a"


def seen(offset: int, data: str | None = None, *, event_id: str | None = None, channel: str = CHANNEL) -> Seen:
    """Return the event that is at `offset` of a run without faults, but for what is said."""
    return Seen(channel, event_id or f"e-{offset}", data or f"d{offset}", offset)


class LedgerTests(TestCase):
    def ledger(self, count: int = 5, *, forgets: bool = False) -> Ledger:
        """Make the ledger of a run without faults: each event is acknowledged before the next is sent."""
        ledger = Ledger([CHANNEL] if forgets else [])
        for number in range(1, count + 1):
            sent = ledger.send(f"d{number}", (CHANNEL,), number)
            sent.answers.append((f"e-{number}", number, number + 0.5))
        ledger.views.append(View("s", (CHANNEL,), [seen(number) for number in range(1, count + 1)]))
        ledger.histories[CHANNEL] = [seen(number) for number in range(1, count + 1)]
        return ledger

    def assertFault(self, ledger: Ledger, *kinds: str) -> None:
        """Check that these kinds of faults are found, and no others."""
        faults = ledger.faults()
        self.assertEqual({line.partition(":")[0] for line in faults}, set(kinds), faults)

    def test_a_run_without_faults_has_none(self) -> None:
        self.assertEqual(self.ledger().faults(), [])
        self.assertEqual(self.ledger().acknowledged, 5)

    def test_what_was_not_acknowledged_may_be_there_or_not(self) -> None:
        ledger = self.ledger()
        ledger.send("lost", (CHANNEL,), 9)
        ledger.sent["d3"].answers.clear()
        self.assertEqual(ledger.faults(), [])

    def test_a_subscriber_that_cannot_tell_offsets_is_checked_by_the_data(self) -> None:
        ledger = self.ledger()
        plain: list[Seen | None] = [Seen(CHANNEL, f"e-{number}", f"d{number}") for number in range(1, 6)]
        ledger.views[0].seen = plain
        self.assertEqual(ledger.faults(), [])
        ledger.views[0].seen = plain[:2] + plain[3:]
        self.assertFault(ledger, "recovered")

    def test_what_only_one_saw_that_cannot_tell_offsets_takes_the_place_of_what_is_missing(self) -> None:
        ledger = self.ledger(forgets=True)
        del ledger.histories[CHANNEL][:3]
        ledger.sent["d2"].answers.clear()
        plain: list[Seen | None] = [Seen(CHANNEL, f"e-{number}", f"d{number}") for number in range(1, 6)]
        ledger.views[0].seen = plain
        self.assertEqual(ledger.faults(), [])
        plain[1], plain[2] = plain[2], plain[1]
        self.assertFault(ledger, "recovered", "order")

    def test_an_acknowledged_event_that_is_missing_everywhere(self) -> None:
        ledger = self.ledger()
        ledger.send("lost", (CHANNEL,), 9).answers.append(("e-6", 6, 9.5))
        self.assertFault(ledger, "missing", "recovered")

    def test_an_acknowledged_event_that_is_missing_in_the_history(self) -> None:
        ledger = self.ledger()
        del ledger.histories[CHANNEL][-1]
        self.assertFault(ledger, "missing")

    def test_an_event_that_was_delivered_and_then_lost(self) -> None:
        ledger = self.ledger()
        ledger.sent["d5"].answers.clear()
        del ledger.histories[CHANNEL][-1]
        self.assertFault(ledger, "missing")

    def test_a_history_that_lost_its_beginning(self) -> None:
        ledger = self.ledger()
        del ledger.histories[CHANNEL][0]
        self.assertFault(ledger, "missing")

    def test_an_acknowledged_event_that_is_missing_in_the_second_channel(self) -> None:
        ledger = self.ledger()
        ledger.sent["d2"].channels = (CHANNEL, "b")
        ledger.histories["b"] = []
        self.assertFault(ledger, "missing")

    def test_a_hole_in_the_history(self) -> None:
        ledger = self.ledger(forgets=True)
        del ledger.histories[CHANNEL][2]
        self.assertFault(ledger, "order")

    def test_a_channel_that_forgets_may_have_lost_the_beginning_but_not_the_end(self) -> None:
        ledger = self.ledger(forgets=True)
        del ledger.histories[CHANNEL][:3]
        self.assertEqual(ledger.faults(), [])
        del ledger.histories[CHANNEL][-1]
        self.assertFault(ledger, "missing")

    def test_an_id_given_twice(self) -> None:
        ledger = self.ledger()
        ledger.send("again", (CHANNEL,), 9).answers.append(("e-2", 6, 9.5))
        ledger.views[0].seen.append(seen(6, "again", event_id="e-2"))
        ledger.histories[CHANNEL].append(seen(6, "again", event_id="e-2"))
        self.assertFault(ledger, "id twice")

    def test_an_offset_given_twice(self) -> None:
        ledger = self.ledger()
        ledger.send("again", (CHANNEL,), 9).answers.append(("e-6", 2, 9.5))
        self.assertIn("offset twice: 2 of a is d2 and, for its publisher, again", ledger.faults())

    def test_a_subscriber_that_has_another_event_at_an_offset(self) -> None:
        ledger = self.ledger()
        ledger.send("other", (CHANNEL,), 0)
        ledger.views[0].seen[1] = seen(2, "other", event_id="e-9")
        self.assertIn("offset twice: 2 of a is d2 and, for subscriber s, other", ledger.faults())

    def test_an_event_that_was_changed(self) -> None:
        ledger = self.ledger()
        ledger.views[0].seen[1] = seen(2, "D2")
        self.assertFault(ledger, "changed")
        ledger = self.ledger()
        ledger.histories[CHANNEL][1] = seen(2, "D2")
        self.assertFault(ledger, "changed", "missing")

    def test_an_event_in_a_channel_to_which_it_was_not_published(self) -> None:
        ledger = self.ledger()
        ledger.views.append(View("t", ("b",), [seen(2, channel="b")]))
        self.assertFault(ledger, "changed")

    def test_a_given_id_that_became_another(self) -> None:
        ledger = self.ledger()
        ledger.sent["d2"].given = "mine"
        self.assertFault(ledger, "another id")

    def test_order_violated_for_a_subscriber(self) -> None:
        ledger = self.ledger()
        view = ledger.views[0].seen
        view[1], view[2] = view[2], view[1]
        self.assertFault(ledger, "order", "recovered")

    def test_order_violated_in_the_history(self) -> None:
        ledger = self.ledger()
        history = ledger.histories[CHANNEL]
        history[1], history[2] = history[2], history[1]
        self.assertFault(ledger, "order")

    def test_an_event_ahead_of_one_that_was_acknowledged_before_it_was_sent(self) -> None:
        ledger = self.ledger()
        ledger.sent["d2"].sent_s = 3.7  # d3 was acknowledged at 3.5
        self.assertFault(ledger, "order")

    def test_events_that_were_under_way_together_may_come_in_any_order(self) -> None:
        ledger = self.ledger()
        ledger.sent["d2"].sent_s = 3.3
        self.assertEqual(ledger.faults(), [])

    def test_a_retried_id_that_is_there_twice(self) -> None:
        ledger = self.ledger()
        ledger.sent["d2"].given = "e-2"
        ledger.sent["d2"].answers.append(("e-2", 6, 9.0))
        ledger.histories[CHANNEL].append(seen(6, "d2", event_id="e-2"))
        ledger.views[0].seen.append(seen(6, "d2", event_id="e-2"))
        self.assertFault(ledger, "delivered twice")

    def test_a_retry_that_is_answered_as_before(self) -> None:
        ledger = self.ledger()
        ledger.sent["d2"].answers.append(("e-2", 2, 9.0))
        self.assertEqual(ledger.faults(), [])

    def test_an_event_that_a_subscriber_gets_again_after_it_came_back(self) -> None:
        ledger = self.ledger()
        ledger.views[0].seen.append(seen(5))
        self.assertFault(ledger, "delivered twice")

    def test_recovered_though_something_is_missing(self) -> None:
        for missing in (0, 2, 4):
            for forgets in (False, True):
                ledger = self.ledger(forgets=forgets)
                del ledger.views[0].seen[missing]
                self.assertFault(ledger, "recovered")

    def test_a_gap_that_is_told_where_events_may_be_dropped(self) -> None:
        ledger = self.ledger(forgets=True)
        ledger.views[0].seen[1:3] = [None]
        self.assertEqual(ledger.faults(), [])
        del ledger.views[0].seen[-1]  # the one told gap excuses nothing later
        self.assertFault(ledger, "recovered")

    def test_a_gap_that_is_told_where_nothing_can_be_missing(self) -> None:
        ledger = self.ledger()
        ledger.views[0].seen.insert(2, None)
        self.assertFault(ledger, "gap")

    def test_many_faults_of_a_kind_are_cut_short(self) -> None:
        ledger = self.ledger(100)
        ledger.views[0].seen.clear()
        faults = ledger.faults()
        self.assertEqual(len(faults), 21)
        self.assertEqual(faults[-1], "recovered: 80 more")
