"""Work for all subscribers is prepared as it is done, not all of it in the first slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast
from unittest.mock import patch

from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.grants import EVERYTHING
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import HttpClient

REASON = CloseReason(CloseCause.REFUSED, "enough")


class LazyTests(DaemonTests):
    def test_calls_are_made_as_they_come_to_their_turn(self) -> None:
        clients = [HttpClient(self.rig) for _ in range(20)]
        for client in clients:
            client.send("GET", "/sse?channel=news")
        self.rig.turn()
        parts = self.rig.parts
        sessions, bus = parts.sessions, parts.bus
        grants = parts.ingress.guard.anonymous.grants
        works: tuple[tuple[str, object, Callable[[], None]], ...] = (
            ("pushd.sessions.registry.partial", sessions._slices, lambda: sessions.regrant(grants, EVERYTHING)),
            (
                "pushd.sessions.registry.partial",
                sessions._slices,
                lambda: sessions.end_each(iter(sessions), REASON),
            ),
            ("pushd.bus.bus.partial", bus._slices, lambda: bus.clear("news", None)),
        )
        for name, slices, work in works:
            with self.subTest(name):
                made: list[object] = []
                taken: list[Iterable[Any]] = []

                def counted(*arguments: Any, made: list[object] = made) -> Callable[[], int]:
                    made.append(arguments)
                    return cast(Any, partial)(*arguments)  # type: ignore[no-any-return]

                self.patch(slices, "do", taken.append)
                with patch(name, counted):
                    work()
                    self.assertEqual(made, [])
                    calls = iter(taken[0])
                    next(calls)
                    self.assertEqual(len(made), 1)
                    self.assertEqual(len(list(calls)), len(clients) - 1)
