"""Whether there is memory, and what is done without it."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request as AnyRequest

from pushd.bus.bus import Published
from pushd.bus.event import Entry
from pushd.bus.memory_headroom import ENOUGH_BYTES, Headroom, memory
from pushd.daemon.memory_watch import can_have, watch
from pushd.errors import OutOfMemory
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.transaction import Transaction
from pushd.wire import json as jsontext
from pushd.wire.json import json_bytes, read_json
from tests.component.store.test_faults import StoreCase
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http2_client import Http2Client

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


class HeadroomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.limit = 1 << 40
        self.changes: list[bool] = []
        self.headroom = Headroom()
        self.headroom.ask = lambda size: size <= self.limit
        self.headroom.changed = self.changes.append

    def test_there_must_be_enough_beside_what_is_asked_for(self) -> None:
        self.limit = ENOUGH_BYTES + 100
        self.assertEqual([self.headroom.has(size) for size in (0, 100, 101)], [True, True, False])

    def test_it_is_short_until_it_is_found_not_to_be(self) -> None:
        self.headroom.look()
        self.headroom.missed()
        self.headroom.missed()
        self.assertEqual((self.headroom.is_short, self.headroom.has(0)), (True, False))
        self.headroom.look()
        self.assertIs(self.headroom.is_short, False)
        self.limit = ENOUGH_BYTES - 1
        self.headroom.look()
        self.headroom.look()
        self.assertEqual(self.changes, [True, False, True])

    def test_the_kernel_is_asked_and_the_log_says_when_it_changes(self) -> None:
        self.assertEqual(
            [can_have(size) for size in (1, ENOUGH_BYTES, 1 << 60, 1 << 70)], [True, True, False, False]
        )
        with capturedLogs() as events:
            clock = Clock()
            looks = watch(self.headroom, clock)
            self.headroom.missed()
            looks.start(1.0, now=False)
            clock.advance(1)
            looks.stop()
        said = [(event["log_level"], formatEvent(event)) for event in events]
        self.assertEqual(
            said,
            [
                (LogLevel.warn, "memory is short: less than 32 MiB can be had, see the limits of the process"),
                (LogLevel.info, "memory is not short any more"),
            ],
        )


class Crashes:
    """orjson, where it would crash."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"orjson.{name}")


class JsonTests(SynchronousTestCase):
    """orjson is not used where a failed allocation would crash it."""

    def setUp(self) -> None:
        self.patch(memory, "ask", lambda size: False)
        self.patch(jsontext, "orjson", Crashes())
        self.addCleanup(setattr, memory, "is_short", False)

    @given(VALUES)
    def test_without_memory_the_same_is_read_and_written(self, value: Any) -> None:
        memory.missed()
        written = json_bytes({"value": value})
        self.assertEqual(read_json(written), {"value": value})
        self.assertEqual(json.loads(written), {"value": value})

    def test_what_is_long_is_asked_for(self) -> None:
        for data in ("x" * 100_000, "\x01" * 100_000, "\U0001f600" * 70_000):
            written = json_bytes({"data": data}, data)
            for text in (written, written.decode()):
                self.assertEqual(read_json(text), {"data": data})

    def test_what_is_short_is_not_asked_about(self) -> None:
        self.assertRaisesRegex(AssertionError, "orjson", read_json, b"1")
        self.assertRaisesRegex(AssertionError, "orjson", json_bytes, {"data": "x"})


class DeliveryTests(DaemonTests):
    """A subscriber for whose event there is no memory is told, and loses nothing. Requests: `test_openapi`."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(memory.look)

    def test_a_body_for_which_there_is_none_is_refused(self) -> None:
        self.rig = DaemonRig("", Http2Client)
        with patch.object(AnyRequest, "handleContentChunk", side_effect=MemoryError):
            response = self.rig.request("POST", "/channels/a", body=b"x" * 1000)
        self.assert_problem(response, 503, says="not enough memory")
        self.assertEqual(response.header("retry-after"), "10")
        self.rig.publish("a")

    def test_what_is_read_of_a_subscription_is_missing_for_nobody(self) -> None:
        for path, end in (("/sse", b"not enough memory"), ("/stream", b"not enough memory")):
            for since in ("latest", "earliest"):
                self.start()
                self.rig.publish("a", b"before")
                client = self.rig.client()
                client.send("GET", f"{path}?channel=a&since={since}")
                self.rig.turn()
                frame = Entry.frame

                def fails(entry: Entry, encode: Any) -> bytes:
                    if entry.event.data == b"large":
                        raise MemoryError
                    return frame(entry, encode)  # noqa: B023

                with patch.object(Entry, "frame", fails):
                    for data in (b"small", b"large", b"after"):
                        self.rig.publish("a", data)
                    self.rig.turn()
                received = client.written[0].body
                self.assertIn(b"small", received)
                self.assertNotIn(b"after", received)
                self.assertIn(end, received)
                self.assertTrue(memory.is_short)
                self.assertEqual(self.rig.traces.subscribers, 0)

    def test_a_replay_ends_with_the_reason(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        with patch.object(Entry, "frame", side_effect=MemoryError):
            client = self.rig.client()
            client.send("GET", "/stream?channel=a&since=earliest")
            self.rig.turn()
        self.assertIn(b"not enough memory", client.written[0].body)
        self.assertEqual(self.rig.traces.subscribers, 0)


class StoreTests(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(memory.look)

    def test_what_cannot_be_written_or_read_for_lack_of_memory_is_refused_and_the_rest_goes_on(self) -> None:
        stored = self.open(recent_bytes=1)
        stored.publish_each("a", b"1", b"2")
        for owner, name in ((Transaction, "_add_batch"), (Store, "_make")):
            with patch.object(owner, name, side_effect=MemoryError):
                self.assertIsInstance(stored.publish("a"), OutOfMemory)
            self.assertIsInstance(stored.publish("a", data=b"3"), Published)
        stored.store.archive._past._chunks.clear()
        reader = stored.store._reader

        class Fails:
            def execute(self, *arguments: object) -> None:
                raise MemoryError

        stored.store._reader = Fails()  # type: ignore[assignment]
        self.assertRaises(OutOfMemory, stored.read, "a")
        stored.store._reader = reader
        self.assertEqual(stored.datas("a"), [b"1", b"2", b"3", b"3"])
