"""Which channels may have one of the first few entries of all channels."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.earliest_entries import EarliestEntries
from pushd.bus.history import MemoryHistory
from tests.rigs.builders import Kept, entry


class LooselyBound(MemoryHistory):
    """A history whose bound is as low as can be, as for a store that is not read for it."""

    def bound(self, sequence: int) -> int:
        return sequence + 1


def history_of(*sequences: int, loose: bool = False) -> MemoryHistory:
    history = (LooselyBound if loose else MemoryHistory)(Kept(1000), 0)
    for offset, sequence in enumerate(sequences, 1):
        history.extend([entry(sequence, offset)])
    return history


class EarliestTests(SynchronousTestCase):
    def test_only_what_is_before_the_first_few_is_wanted_once_they_are_known(self) -> None:
        for loose in (False, True):
            firsts = EarliestEntries(2)
            wanted = [firsts.wants(history_of(first, loose=loose), 0) for first in (30, 40, 50, 20, 35, 30)]
            self.assertEqual(wanted, [True, True, False, True, False, True])
            self.assertEqual(firsts.end, 30)

    def test_a_history_without_later_entries_is_not_wanted(self) -> None:
        self.assertFalse(EarliestEntries(2).wants(history_of(1, 2), 2))
