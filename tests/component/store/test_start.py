"""A start with many channels: in steps that are told, and without the garbage collector."""

from __future__ import annotations

import gc
from unittest.mock import patch

from pushd.store.sqlite import store
from tests.component.store.test_bus import StoredBusCase
from tests.rigs.stored import StoredBusRig


class StartTests(StoredBusCase):
    def restart(self, rig: StoredBusRig, most: int) -> tuple[list[int], list[bool], list[object]]:
        """Restart with 5 channels, of which 2 are read at a time; return what was told."""
        told, collecting = list[int](), list[bool]()

        def progress(channels: int) -> None:
            told.append(channels)
            collecting.append(gc.isenabled())

        opened = rig.store.__class__.open
        with (
            patch.object(store, "_ROWS", 2),
            patch.object(store, "_FREEZE_CHANNELS", most),
            patch.object(gc, "freeze") as freeze,
            patch.object(store.Store, "open", lambda self, log: opened(self, log, progress)),
        ):
            rig.restart()
        return told, collecting, list(freeze.mock_calls)

    def test_it_tells_how_far_it_is_and_nothing_is_collected_meanwhile(self) -> None:
        rig = self.made()
        for name in "abcde":
            rig.publish(name, data=name.encode())
        told, collecting, frozen = self.restart(rig, 4)
        self.assertEqual((told, collecting, len(frozen)), ([2, 4, 5], [False] * 3, 1))
        self.assertTrue(gc.isenabled())
        self.assertEqual(rig.retained("**"), [b"a", b"b", b"c", b"d", b"e"])
        self.assertTrue(rig.read("**", since="0123456789-1").recovered)

    def test_few_channels_are_left_to_the_collector(self) -> None:
        rig = self.made()
        rig.publish("a")
        self.assertEqual(self.restart(rig, 1), ([1], [False], []))
