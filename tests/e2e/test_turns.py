"""The instrument itself: a long turn is seen, and idling is not one."""

from __future__ import annotations

from tests.e2e.daemon import request, running


def test_a_turn_that_works_is_measured_and_an_idle_one_is_short() -> None:
    with running(measures_turns=True) as daemon:
        turns = daemon.turns
        assert turns is not None
        request(f"{daemon.http}/healthz")
        turns.reset()
        before = turns.count
        request(f"{daemon.http}/healthz")
        assert turns.count > before
        quick = turns.longest_ms
        assert quick > 0
        daemon.publish("many", "x" * 1_000_000)
        assert turns.longest_ms >= quick
        assert turns.longest_wall_ms >= turns.longest_ms / 2
        assert quick < 20
