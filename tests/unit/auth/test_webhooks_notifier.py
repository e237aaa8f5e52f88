"""Telling the application: in order, again if that fails, and never more than is waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.webhooks.answers import Answer
from pushd.auth.webhooks.notifier import MAX_BATCH, WebhookNotifier
from tests.rigs.application import Application, Posted, answer, caller, hooks
from tests.rigs.effort import examples

URL = "https://app.example/told?key=hidden"
NOW = 1_700_000_000.0


class TellingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.application = Application()
        self.chance = 1.0
        self.outcomes = Counter[tuple[str, str]]()
        self.configure()

    def configure(self, **options: Any) -> None:
        self.notifier = WebhookNotifier(
            replace(hooks(after=URL), **options),
            self.application,
            call_later=self.clock.callLater,
            seconds=self.clock.seconds,
            now=lambda: NOW + self.clock.seconds(),
            random=lambda: self.chance,
            token="t",
            outcomes=self.outcomes,
        )

    def occupy(self, *channels: object) -> None:
        """Let something happen that is known by its channel."""
        for channel in channels:
            self.notifier.occupied(str(channel))

    def told(self, posted: Iterable[Posted] | None = None) -> list[str]:
        """Return the channels that were told of, in every request."""
        return [
            event.get("channel", f"dropped {event.get('count')}")
            for one in (self.application.posted if posted is None else posted)
            for event in one.body["events"]
        ]

    def turn(self) -> None:
        self.clock.advance(0)

    def logged(self, call: Callable[[], object]) -> list[str]:
        with capturedLogs() as events:
            call()
        return [formatEvent(event) for event in events]

    def tried_after(self, seconds: float) -> bool:
        """Return whether a request is made after just so many seconds, and not before."""
        before = len(self.application.posted)
        self.clock.advance(seconds - 0.01)
        was_early = len(self.application.posted) > before
        self.clock.advance(0.01)
        return not was_early and len(self.application.posted) == before + 1


class EventTests(TellingTests):
    def test_what_is_told_of_each_event(self) -> None:
        who = caller(payload={"x": 1})
        self.notifier.connected(who)
        self.notifier.subscribed(who, "a/*")
        self.notifier.occupied("a/b")
        self.notifier.unsubscribed(who, "a/*")
        self.notifier.vacated("a/b")
        self.notifier.disconnected(who, "went away\n")
        self.turn()
        client: dict[str, Any] = {
            "connection": "c-1",
            "transport": "websocket",
            "address": "192.0.2.7",
            "user": "ada",
            "payload": {"x": 1},
        }
        wanted = [
            {"event": "connect", **client},
            {"event": "subscribe", **client, "channel": "a/*"},
            {"event": "occupied", "channel": "a/b"},
            {"event": "unsubscribe", **client, "channel": "a/*"},
            {"event": "vacated", "channel": "a/b"},
            {"event": "disconnect", **client, "reason": "went away\n"},
        ]
        [posted] = self.application.posted
        self.assertEqual(posted.url, URL)
        self.assertEqual(
            posted.body["events"],
            [{**event, "id": f"t-{number}", "time": NOW} for number, event in enumerate(wanted, 1)],
        )

    def test_a_payload_of_none_is_left_out_and_a_user_is_null(self) -> None:
        self.notifier.connected(caller(None))
        self.turn()
        [event] = self.application.bodies[0]["events"]
        self.assertNotIn("payload", event)
        self.assertIsNone(event["user"])

    def test_only_what_after_events_names_is_told(self) -> None:
        self.configure(after_events=frozenset({"vacated"}))
        self.occupy("a")
        self.notifier.vacated("b")
        self.turn()
        self.assertEqual(self.told(), ["b"])

    def test_without_a_url_nothing_is_told_nor_kept(self) -> None:
        self.configure(after=None)
        self.occupy("a")
        self.assertEqual((self.notifier.waiting, self.notifier.dropped, self.clock.getDelayedCalls()), (0, 0, []))


class BatchTests(TellingTests):
    def test_what_happens_in_one_turn_goes_in_one_request_of_up_to_a_hundred(self) -> None:
        self.occupy(*range(250))
        self.assertEqual(self.application.posted, [])
        self.turn()
        self.assertEqual([len(body["events"]) for body in self.application.bodies], [100, 100, 50])
        self.assertEqual(self.told(), [str(number) for number in range(250)])
        self.assertEqual((self.notifier.told, self.notifier.waiting), (250, 0))

    def test_large_events_go_in_smaller_requests(self) -> None:
        for size in (60_000, 10_000, 70_000, 10, 10):
            self.notifier.connected(caller(payload="x" * size))
        self.turn()
        self.assertEqual([len(body["events"]) for body in self.application.bodies], [1, 1, 1, 2])

    def test_one_request_is_made_at_a_time(self) -> None:
        self.application.always(None)
        self.occupy("a")
        self.turn()
        self.occupy("b", "c")
        self.clock.advance(60)
        self.assertEqual(self.told(), ["a"])
        self.application.posted[0].answered.callback(answer())
        self.assertEqual(self.told(), ["a", "b", "c"])

    def test_any_status_of_200_to_299_is_success_whatever_the_body(self) -> None:
        for status in (200, 202, 204, 299):
            self.application.always(answer(b"<html>", status))
            self.occupy("a")
            self.turn()
        self.assertEqual((self.notifier.told, len(self.application.posted)), (4, 4))


class RetryTests(TellingTests):
    def test_it_is_tried_again_with_pauses_that_double_to_half_a_minute(self) -> None:
        self.application.always("no route")
        self.configure(retry_for_s=3600)
        self.occupy("a")
        self.turn()
        for pause_s in (0.5, 1, 2, 4, 8, 16, 30, 30, 30):
            self.assertTrue(self.tried_after(pause_s), pause_s)

    def test_the_pauses_are_drawn_from_nothing_to_the_longest(self) -> None:
        self.application.always(answer(status=500))
        self.chance = 0.25
        self.occupy("a")
        self.turn()
        self.assertTrue(self.tried_after(0.125))
        self.chance = 0.5
        self.assertTrue(self.tried_after(0.25))
        self.assertTrue(self.tried_after(1))

    def test_the_request_is_the_same_at_every_try_and_no_other_has_its_id(self) -> None:
        self.application.always("no route")
        self.occupy("a")
        self.turn()
        self.occupy("b")
        self.clock.advance(0.5)
        self.application.always(answer())
        self.clock.advance(1)
        first, second, third, other = self.application.posted
        self.assertEqual((first.id, first.body), (second.id, second.body))
        self.assertEqual((first.id, first.body), (third.id, third.body))
        self.assertNotEqual(first.id, other.id)
        self.assertNotIn(".", first.id)
        self.assertEqual(self.told([third, other]), ["a", "b"])

    def test_after_a_success_the_pauses_begin_again(self) -> None:
        self.application.always("no route")
        self.occupy("a")
        self.turn()
        self.clock.advance(0.5)
        self.application.always(answer())
        self.clock.advance(1)
        self.application.always("no route")
        self.occupy("b")
        self.turn()
        self.assertTrue(self.tried_after(0.5))

    def test_it_is_given_up_when_retry_for_is_over(self) -> None:
        self.application.always("no route")
        self.configure(retry_for_s=10)
        self.occupy("a", "b")
        lines = self.logged(lambda: self.clock.pump([0, 0.5, 1, 2, 4, 2.4]))
        self.assertEqual(self.notifier.dropped, 0)
        lines += self.logged(lambda: self.clock.advance(0.1))
        self.assertEqual((self.notifier.dropped, self.notifier.told, len(self.application.posted)), (2, 0, 6))
        self.assertEqual(
            lines,
            [
                "the hook https://app.example/told could not be told: no route; it is tried again",
                "dropped 2 events for the hook https://app.example/told: no route",
            ],
        )

    def test_the_next_ones_are_told_how_many_were_given_up_and_not_faster(self) -> None:
        self.application.always("no route")
        self.configure(retry_for_s=1)
        self.occupy("a", "b")
        self.clock.pump([0, 0.5, 0.5])
        self.assertEqual(self.notifier.dropped, 2)
        self.application.always(answer())
        self.occupy("c")
        self.assertTrue(self.tried_after(2))
        self.assertEqual(self.told(self.application.posted[-1:]), ["dropped 2", "c"])
        self.assertEqual(self.notifier.told, 1)

    def test_a_notice_of_what_was_dropped_is_not_lost_with_its_batch(self) -> None:
        self.configure(retry_for_s=0)
        self.application.always("no route")
        self.occupy("a")
        self.turn()
        self.occupy("b")
        self.clock.advance(0.5)
        self.application.always(answer())
        self.occupy("c")
        self.clock.advance(1)
        self.assertEqual(self.told(), ["a", "dropped 1", "b", "dropped 2", "c"])

    def test_what_the_application_will_never_take_is_dropped_at_once(self) -> None:
        for status in (400, 401, 403, 404, 410, 413, 422):
            self.application.always(answer(status=status))
            self.occupy("a")
            self.clock.advance(60)
        self.assertEqual((self.notifier.dropped, len(self.application.posted)), (7, 7))

    def test_what_it_may_take_later_is_tried_again(self) -> None:
        for status in (302, 408, 409, 425, 429, 500, 503):
            self.application.always(answer(status=status))
            self.occupy("a")
            self.clock.advance(60)
            self.application.always(answer())
            self.clock.advance(60)
        self.assertEqual((self.notifier.dropped, self.notifier.told), (0, 7))

    def test_retry_after_is_obeyed(self) -> None:
        self.application.always(answer(status=503, retry_after_s=77))
        self.occupy("a")
        self.turn()
        self.assertTrue(self.tried_after(77))
        self.application.always(answer())
        self.assertTrue(self.tried_after(77))

    def test_one_that_is_longer_than_retry_for_holds_for_the_next(self) -> None:
        self.configure(retry_for_s=60)
        self.application.always(answer(status=503, retry_after_s=10**9))
        self.occupy("a")
        self.turn()
        self.occupy("b")
        self.application.always(answer())
        self.assertEqual(self.notifier.dropped, 1)
        self.assertTrue(self.tried_after(60))
        self.assertEqual(self.told(), ["a", "dropped 1", "b"])

    def test_it_is_logged_that_it_works_again(self) -> None:
        self.application.always("no route")
        self.occupy("a")
        lines = self.logged(lambda: self.clock.pump([0, 0.5, 1]))
        self.application.always(answer())
        lines += self.logged(lambda: self.clock.pump([2, 4]))
        self.assertEqual(lines[1:], ["the hook https://app.example/told is told again"])

    def test_a_fault_of_pushd_does_not_end_the_telling(self) -> None:
        def fail(posted: Posted) -> Answer:
            raise ZeroDivisionError

        self.application.react = fail
        self.occupy("a")
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.application.always(answer())
        self.occupy("b")
        self.clock.advance(30)
        self.assertEqual(self.told(), ["a", "a", "b"])


class QueueTests(TellingTests):
    def test_when_too_much_waits_the_oldest_is_dropped_and_how_much_is_told_first(self) -> None:
        self.configure(queue=3)
        self.application.always(None)
        self.occupy("first")
        self.turn()
        lines = self.logged(lambda: self.occupy(*"abcdefg"))
        self.assertEqual(
            lines, ["the hook https://app.example/told is not told everything: [hooks] queue or retry_for is over"]
        )
        self.assertEqual((self.notifier.waiting, self.notifier.dropped), (4, 4))
        self.application.always(answer())
        self.application.posted[0].answered.callback(answer())
        self.assertEqual(self.told(), ["first", "dropped 4", "e", "f", "g"])
        [dropped, *_] = self.application.bodies[1]["events"]
        self.assertEqual(dropped, {"event": "dropped", "count": 4, "id": dropped["id"], "time": NOW})
        self.assertEqual((self.notifier.told, self.notifier.dropped), (4, 4))

    def test_it_is_told_once_only(self) -> None:
        self.configure(queue=1)
        self.occupy("a", "b")
        self.turn()
        self.occupy("c")
        self.turn()
        self.assertEqual(self.told(), ["dropped 1", "b", "c"])

    def test_a_batch_with_it_is_not_longer_than_others(self) -> None:
        self.configure(queue=150)
        self.occupy(*range(151))
        self.turn()
        self.assertEqual([len(body["events"]) for body in self.application.bodies], [MAX_BATCH, 51])


class CloseTests(TellingTests):
    def close(self, timeout_s: float = 5) -> Deferred[None]:
        return Deferred.fromCoroutine(self.notifier.close(timeout_s))

    def test_what_waits_is_told_first(self) -> None:
        self.occupy("a")
        self.successResultOf(self.close())
        self.assertEqual(self.told(), ["a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_with_nothing_to_tell_it_is_done(self) -> None:
        self.assertEqual(self.logged(lambda: self.successResultOf(self.close())), [])

    def test_what_happens_meanwhile_is_told_and_later_nothing_is(self) -> None:
        self.application.always(None)
        self.occupy("a")
        closed = self.close()
        self.occupy("b")
        self.application.always(answer())
        self.application.posted[0].answered.callback(answer())
        self.successResultOf(closed)
        self.occupy("c")
        self.clock.advance(60)
        self.assertEqual(self.told(), ["a", "b"])
        self.assertEqual((self.notifier.told, self.notifier.dropped), (2, 1))
        self.assertEqual(self.outcomes, {("after", "told"): 2, ("after", "dropped"): 1})

    def test_a_pause_is_not_waited_for(self) -> None:
        self.application.always("no route")
        self.occupy("a")
        self.clock.pump([0, 0.5, 1, 2, 4])
        self.application.always(answer())
        self.successResultOf(self.close())
        self.assertEqual((self.notifier.told, self.clock.getDelayedCalls()), (1, []))

    def test_it_is_tried_again_within_the_time(self) -> None:
        self.application.always("no route")
        self.occupy("a")
        closed = self.close()
        self.clock.advance(0.5)
        self.application.always(answer())
        self.clock.advance(1)
        self.successResultOf(closed)
        self.assertEqual(self.notifier.told, 1)

    def test_after_the_time_it_says_how_many_were_not_told(self) -> None:
        self.application.always(None)
        self.occupy("a", "b")
        self.turn()
        self.occupy("c")
        closed = self.close(5)
        self.clock.advance(4.9)
        self.assertNoResult(closed)
        lines = self.logged(lambda: self.clock.advance(0.1))
        self.successResultOf(closed)
        self.assertEqual(lines, ["the hook https://app.example/told was not told 3 events"])
        self.assertEqual((self.notifier.told, self.notifier.dropped, self.notifier.waiting), (0, 3, 0))
        self.assertEqual(self.outcomes, {("after", "dropped"): 3})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_so_it_does_during_a_pause(self) -> None:
        self.application.always("no route")
        self.occupy("a")
        closed = self.close(0.1)
        self.clock.advance(0.1)
        self.successResultOf(closed)
        self.assertEqual((self.notifier.dropped, self.clock.getDelayedCalls()), (1, []))


REACTIONS = st.sampled_from(["taken", "lost", "refused", "503", "410", "later"])


class _Model:
    """An application that fails in every way there is, and forgets what it has heard before."""

    def __init__(self, queue: int, retry_for_s: float) -> None:
        self.clock = Clock()
        self.application = Application()
        self.application.react = self.react
        self.reaction = "taken"
        self.taken: dict[str, list[dict[str, Any]]] = {}
        self.happened = 0
        self.notifier = WebhookNotifier(
            hooks(after=URL, queue=queue, retry_for_s=retry_for_s),
            self.application,
            call_later=self.clock.callLater,
            seconds=self.clock.seconds,
            now=self.clock.seconds,
            random=lambda: 0.5,
            token="t",
        )

    def react(self, posted: Posted) -> Answer | str | None:
        events = posted.body["events"]
        if self.reaction in ("taken", "lost", "later"):
            assert self.taken.setdefault(posted.id, events) == events, "one id, two requests"
        if self.reaction == "later":
            return None
        if self.reaction in ("503", "410"):
            return answer(status=int(self.reaction))
        return answer() if self.reaction == "taken" else self.reaction

    def happen(self, times: int) -> None:
        for _ in range(times):
            self.notifier.occupied(str(self.happened))
            self.happened += 1

    def answer_late(self) -> None:
        """Answer the request that waits for its answer, if one does."""
        waiting = [posted for posted in self.application.posted[-1:] if not posted.answered.called]
        if self.reaction == "later" and self.notifier.waiting and waiting:
            self.reaction = "taken"
            waiting[0].answered.callback(answer())


class ModelTests(SynchronousTestCase):
    @examples(150)
    @given(
        queue=st.integers(1, 300),
        retry_for_s=st.sampled_from([0, 3, 10_000]),
        steps=st.lists(st.tuples(st.integers(0, 130), REACTIONS, st.floats(0, 40)), max_size=25),
    )
    def test_all_is_told_in_order_and_once_but_for_what_is_said_to_be_dropped(
        self, queue: int, retry_for_s: float, steps: list[tuple[int, str, float]]
    ) -> None:
        model = _Model(queue, retry_for_s)
        for times, reaction, pause_s in steps:
            model.answer_late()
            model.reaction = reaction
            model.happen(times)
            model.clock.advance(pause_s)
        model.answer_late()
        model.reaction = "taken"
        model.happen(1)
        for _ in range(80):
            model.clock.advance(30)
        notifier = model.notifier
        self.assertEqual(notifier.waiting, 0)
        self.assertEqual(notifier.told + notifier.dropped, model.happened)
        heard = [event for events in model.taken.values() for event in events]
        numbers = [int(event["channel"]) for event in heard if event["event"] == "occupied"]
        self.assertEqual(numbers, sorted(set(numbers)))
        ids = [event["id"] for event in heard]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertEqual(numbers[-1:], [model.happened - 1])
        self.assertLessEqual(model.happened - len(numbers), notifier.dropped)
        is_bounded = sum(times for times, _, _ in steps) < queue
        if is_bounded and retry_for_s == 10_000 and all(reaction != "410" for _, reaction, _ in steps):
            self.assertEqual(numbers, list(range(model.happened)))

    @examples(150)
    @given(
        queue=st.integers(1, 50),
        steps=st.lists(st.tuples(st.integers(0, 130), st.sampled_from(["taken", "refused", "410"])), max_size=25),
    )
    def test_each_gap_is_announced_with_its_size(self, queue: int, steps: list[tuple[int, str]]) -> None:
        model = _Model(queue, 3)
        for times, reaction in steps:
            model.reaction = reaction
            model.happen(times)
            model.clock.advance(1)
        model.reaction = "taken"
        model.happen(1)
        for _ in range(80):
            model.clock.advance(30)
        expected = 0
        for events in model.taken.values():
            for event in events:
                if event["event"] == "dropped":
                    expected += event["count"]
                else:
                    self.assertEqual(int(event["channel"]), expected)
                    expected += 1
        self.assertEqual(expected, model.happened)
