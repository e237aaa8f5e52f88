"""The record: as good as a frozen dataclass, to mypy."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.record import record


@record()
class Point:
    """Something with a value."""

    x: int
    y: int = 0


@record(eq=False)
class Place:
    """Something with an identity."""

    name: str
    seen: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a record is measured by."""

    x: int
    y: int = 0


class RecordTests(SynchronousTestCase):
    def test_it_is_compared_and_hashed_by_its_fields(self) -> None:
        self.assertEqual(Point(1), Point(1, 0))
        self.assertNotEqual(Point(1), Point(1, 1))
        self.assertEqual(len({Point(1), Point(1), Point(2)}), 2)
        self.assertEqual(hash(Point(1, 2)), hash(Frozen(1, 2)))
        self.assertEqual(repr(Point(1)), "Point(x=1, y=0)")

    def test_or_by_its_identity(self) -> None:
        self.assertNotEqual(Place("a"), Place("a"))
        self.assertEqual(len({Place("a"), Place("a")}), 2)

    def test_it_has_no_other_fields(self) -> None:
        self.assertFalse(hasattr(Point(1), "__dict__"))
        self.assertRaises(AttributeError, setattr, Point(1), "z", 1)

    def test_mypy_lets_nobody_change_it(self) -> None:
        """It would complain of comments that ignore nothing."""
        point, place = Point(1), Place("a")
        point.x = 2  # type: ignore[misc]
        place.name = "b"  # type: ignore[misc]
