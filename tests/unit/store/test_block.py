"""The block: what is written is read, and bytes that are none are found out."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.event import Entry, Event, own_id
from pushd.bus.sizes import EVENT_BYTES, event_size
from pushd.store.sqlite.block import Damaged, decode, encode
from tests.rigs.builders import EPOCH, BusRig, draft, entry

NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)
TYPES = st.none() | st.sampled_from(("", "update")) | NAMES
DATAS = st.one_of(st.just(b""), st.binary(max_size=100), st.sampled_from((b"x" * 70_000, "ä€😀".encode())))
TIMES = st.floats(0, 2**40) | st.floats(allow_nan=False)
SEQUENCES = st.integers(0, (1 << 63) - 1)


def sized(event: Event, given_id: str | None) -> Event:
    """Return an event with the size that it has in the store."""
    size = event_size(event.data, event.type, given_id)
    return replace(event, size=size, counts_name=given_id is not None)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[Entry], set[str]]:
    """Entries of the channel ``a``, and those of their ids that were given."""
    entries, given_ids = [], set()
    for offset in range(1, draw(st.integers(1, 5)) + 1):
        sequence, given_id = draw(SEQUENCES), draw(st.none() | NAMES)
        event_id = given_id or own_id(EPOCH, sequence)
        if given_id is not None:
            given_ids.add(event_id)
        position, is_text = own_id(EPOCH, sequence), draw(st.booleans())
        event = Event(event_id, position, draw(DATAS), is_text, draw(TYPES), draw(TIMES), sequence, 0)
        event = sized(event, given_id)
        entries.append(Entry(event, "a", offset, 0.0))
    return entries, given_ids


PLAIN = encode(EPOCH, [entry(1), entry(2)], set())
RICH = encode(
    EPOCH,
    [Entry(sized(Event("given", own_id(EPOCH, 7), b"\xff\x00", False, "update", 1.5, 7, 0), "given"), "a", 1, 0.0)],
    {"given"},
)


HEAD_OF_NAMED = pack("<QdIB", 7, 1.5, 2, 2 | 4 | 8)
NAMED = (
    EPOCH.encode()
    + HEAD_OF_NAMED
    + b"".join(pack("<I", len(text)) + text for text in (b"update", b"given", b"a\0b/c"))
    + b"\xff\x00"
)
"""The same as version 1 wrote it, with the names of all channels."""


class BlockTests(SynchronousTestCase):
    @given(blocks())
    def test_what_was_written_is_read(self, block: tuple[list[Entry], set[str]]) -> None:
        entries, given_ids = block
        written = encode(EPOCH, entries, given_ids)
        self.assertEqual(list(decode(written, "a")), [one.event for one in entries])

    def test_events_of_a_former_epoch_keep_their_ids_and_have_positions_of_the_current_one(self) -> None:
        events = list(decode(PLAIN + RICH[10:], "a", "zyxwvutsrq"))
        self.assertEqual([one.id for one in events], [own_id(EPOCH, 1), own_id(EPOCH, 2), "given"])
        self.assertEqual([one.position for one in events], [own_id("zyxwvutsrq", number) for number in (1, 2, 7)])

    def test_much_data_is_read(self) -> None:
        event = replace(entry(1).event, data=bytes(range(256)) * 8192, is_text=False)
        written = encode(EPOCH, [Entry(event, "a", 1, 0.0), entry(2)], set())
        self.assertEqual(list(decode(written, "a")), [sized(event, None), entry(2).event])

    def test_an_event_that_was_counted_without_its_id_and_type_goes_on_being_counted_so(self) -> None:
        written = EPOCH.encode() + pack("<QdIB", 7, 1.5, 2, 2 | 4)
        written += b"".join(pack("<I", len(text)) + text for text in (b"update", b"given")) + b"\xff\x00"
        (before,), (now,) = decode(written, "a"), decode(RICH, "a")
        self.assertEqual((before.size, before.counts_name), (EVENT_BYTES + 2, False))
        self.assertEqual(replace(before, size=now.size, counts_name=True), now)

    def test_the_form_is_what_it_says(self) -> None:
        """It must stay: stores that are there are read by it."""
        head = pack("<QdIB", 7, 1.5, 2, 2 | 4 | 16)
        texts = [pack("<I", len(text)) + text for text in (b"update", b"given")]
        self.assertEqual(RICH, EPOCH.encode() + head + b"".join(texts) + b"\xff\x00")
        plain = b"".join(pack("<QdIB", number, 1_700_000_000.0, 1, 1 | 16) + b"x" for number in (1, 2))
        self.assertEqual(PLAIN, EPOCH.encode() + plain)

    def test_an_id_of_the_daemon_is_of_the_epoch_that_wrote_it(self) -> None:
        event = replace(entry(3).event, id="abcdefghij-3")
        (read,) = decode(encode("abcdefghij", [Entry(event, "a", 1, 0.0)], set()), "a")
        self.assertEqual(read.id, "abcdefghij-3")

    def test_names_of_version_1_are_skipped(self) -> None:
        for name in ("a", "b/c"):
            ((event,), (wanted,)) = decode(NAMED, name), decode(RICH, name)
            self.assertEqual(replace(event, size=wanted.size, counts_name=True), wanted)

    def test_an_event_of_version_1_that_belongs_to_other_channels_is_damaged(self) -> None:
        for name in ("b", "c", "a\0b", ""):
            self.assertRaises(Damaged, list, decode(NAMED, name))

    def test_what_is_written_does_not_depend_on_the_number_of_channels(self) -> None:
        many = draft(*(f"m/{number}" for number in range(100)), data=b"x", id="given", type="update")
        log = BusRig().log
        entries, ones = log.append(many), log.append(draft("m/0", data=b"x", id="other", type="update"))
        (one,) = ones
        self.assertLessEqual(
            {len(encode(EPOCH, [entry], {"given"})) for entry in entries}, {len(encode(EPOCH, [one], {"other"}))}
        )

    def assertHarmless(self, block: bytes) -> list[Event] | None:
        """Read whatever it is: it is damaged, or it is events."""
        try:
            return list(decode(block, "a"))
        except Damaged:
            return None

    def test_a_block_that_was_cut_off_is_damaged_or_has_fewer_events(self) -> None:
        for whole in (PLAIN, RICH, NAMED):
            events = list(decode(whole, "a"))
            for end in range(len(whole)):
                found = self.assertHarmless(whole[:end])
                with self.subTest(end=end):
                    if found is not None:
                        self.assertEqual(found, events[: len(found)])
                        self.assertLess(len(found), len(events))

    def test_a_block_that_was_cut_off_within_an_event_is_damaged(self) -> None:
        for whole in (RICH, NAMED):
            for end in range(11, len(whole)):
                with self.subTest(end=end), self.assertRaises(Damaged):
                    list(decode(whole[:end], "a"))

    @given(st.sampled_from((PLAIN, RICH, NAMED)), st.integers(0, 200), st.integers(1, 255))
    def test_a_changed_byte_is_harmless(self, whole: bytes, place: int, change: int) -> None:
        place %= len(whole)
        self.assertHarmless(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])

    @given(st.binary(max_size=200))
    @example(b"\xff" * 100)
    @example(b"0123456789" + b"\xff" * 90)
    @example(b"0123456789" + pack("<QdIB", 1, 0.0, 0, 15) + b"\0\0\0\0\xff\xff\xff\xff")
    def test_any_bytes_are_harmless(self, block: bytes) -> None:
        self.assertHarmless(block)

    @given(st.binary(max_size=100), st.integers(0, 255))
    def test_any_bytes_after_a_head_are_harmless(self, rest: bytes, flags: int) -> None:
        self.assertHarmless(EPOCH.encode() + pack("<QdIB", 1, 0.0, len(rest) // 2, flags) + rest)
