"""The trip of a request through the packages: how often it passes from one package or module to another."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import pushd
from tests.rigs.daemon import DaemonRig
from tests.rigs.http_client import HttpClient

_HOME = str(Path(pushd.__file__).parent) + "/"


def trip_of(action: Callable[[], object]) -> list[tuple[str, str]]:
    """Return the modules of pushd whose functions `action` calls, in order, each with the name of the function.

    A call within the module that was called last is not a further step.
    """
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, what: str, argument: Any) -> None:
        code = frame.f_code
        if what == "call" and code.co_filename.startswith(_HOME):
            calls.append((code.co_filename.removeprefix(_HOME).removesuffix(".py"), code.co_qualname))

    before = sys.getprofile()
    gc.disable()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
        gc.enable()
    return [next(run) for _, run in groupby(calls, key=lambda call: call[0])]


def packages_of(trip: list[tuple[str, str]]) -> list[list[str]]:
    """Return the stays of a trip, one for each change of the package: the functions called first in each module."""
    stays = []
    for package, run in groupby(trip, key=lambda step: step[0].partition("/")[0]):
        stays.append([package, *(f"{module.rpartition('/')[2]}:{function}" for module, function in run)])
    return stays


class TripTests(SynchronousTestCase):
    """A bound that is reached may be lowered; one that is passed is a seam that was not there."""

    def check(self, action: Callable[[], object], *, packages: int, modules: int) -> None:
        """Fail, and print the trip, if `action` passes more often from package to package, or module to module."""
        trip = trip_of(action)
        stays = packages_of(trip)
        found = len(stays) - 1, len(trip) - 1
        lines = "\n".join(f"{number:4} {stay[0]:12} {' '.join(stay[1:])}" for number, stay in enumerate(stays))
        self.assertTrue(found[0] <= packages and found[1] <= modules, f"(packages, modules) {found}:\n{lines}")

    def client(self, rig: DaemonRig) -> HttpClient:
        """Connect a client that does nothing with what it gets."""
        client = HttpClient(rig)
        client.connection.on_data = lambda: None
        return client

    def test_a_websocket_until_it_is_subscribed(self) -> None:
        request = (
            b"GET /ws?channel=news HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        rig = DaemonRig()
        self.client(rig).connection.send(request)  # fills caches
        send = self.client(rig).connection.send
        self.check(lambda: send(request), packages=35, modules=90)
        self.assertEqual(rig.parts.bus.subscribers, 2)

    def test_an_event_published_over_http(self) -> None:
        request = (
            b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n"
            b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
        )
        rig = DaemonRig()
        send = self.client(rig).connection.send
        send(request)
        self.check(lambda: send(request), packages=15, modules=53)
        self.assertEqual(rig.parts.bus.log.sequence, 2)
