"""Tables, orders and agendas: they do what their simple counterparts do, a little at a time."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from pushd.bus.lazy_heap import LazyHeap
from pushd.bus.linked_list import Link, LinkedList
from pushd.bus.partitioned_dict import PARTS, PartitionedDict


class TableTests(TestCase):
    @given(st.lists(st.tuples(st.sampled_from("spdg"), st.integers(0, 600))))
    def test_it_is_like_a_dictionary(self, actions: list[tuple[str, int]]) -> None:
        table, model = PartitionedDict[int, str](), dict[int, str]()
        for action, key in actions:
            if action == "s":
                table[key] = model[key] = action + str(len(model))
            elif action == "p":
                self.assertEqual(table.pop(key, None), model.pop(key, None))
            elif action == "d" and key in model:
                del table[key], model[key]
            self.assertEqual((table.get(key), key in table), (model.get(key), key in model))
            self.assertEqual(len(table), len(model))
        self.assertEqual(dict(table), model)
        for key in range(600):
            if key not in model:
                self.assertRaises(KeyError, table.pop, key)
                self.assertRaises(KeyError, table.__getitem__, key)
                self.assertRaises(KeyError, table.__delitem__, key)
        for _ in range(len(model) // 2):
            key, value = table.popitem()
            self.assertEqual(model.pop(key), value)
        self.assertEqual(dict(table), model)
        table.clear()
        self.assertEqual((len(table), list(table)), (0, []))
        self.assertRaises(KeyError, table.popitem)

    def test_emptying_a_table_takes_linear_time(self) -> None:
        table = PartitionedDict[int, None]()
        for key in range(1000):
            table[key] = None
        tried: list[object] = []

        class Part(dict[int, None]):
            def __bool__(self) -> bool:
                tried.append(self)
                return len(self) > 0

        table.parts = tuple(Part(part) for part in table.parts)
        while table:
            table.popitem()
        self.assertLessEqual(len(tried), 1000 + PARTS)

    def test_no_part_is_much_larger_than_the_others(self) -> None:
        for keys in ([f"public/{number}" for number in range(100_000)], range(100_000), range(0, 10**9, 10_000)):
            table = PartitionedDict[object, None]()
            for key in keys:
                table[key] = None
            self.assertLess(max(map(len, table.parts)), 2 * 100_000 // PARTS)


class Item(Link):
    """An item with a number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class OrderTests(TestCase):
    @given(st.lists(st.tuples(st.sampled_from("ppprbf"), st.integers(0, 9))))
    def test_it_is_like_an_ordered_dictionary_with_bookmarks(self, actions: list[tuple[str, int]]) -> None:
        items, order, model = [Item(number) for number in range(10)], LinkedList[Item](), OrderedDict[int, None]()
        marks = [order.bookmark() for _ in range(3)]
        for action, number in actions:
            if action == "p":
                order.put_last(items[number])
                model[number] = None
                model.move_to_end(number)
            elif action == "r" and number in model:
                order.remove(items[number])
                del model[number]
            elif action == "b":
                marks[number % 3].back()
            elif action == "f":
                marks[number % 3].forth()
            self.assertEqual([item.number for item in order], list(model))
            self.assertEqual([item.number for item in reversed(order)], list(reversed(model)))
            self.assertEqual(len(order), len(model))
        for mark in marks:
            found: list[int] = []
            while (item := mark.back()) is not None:
                found.append(item.number)
            self.assertEqual(found, list(reversed(model))[len(model) - len(found) :])
            found = [item.number for item in iter(mark.forth, None)]
            self.assertEqual(found, list(model))
            mark.remove()
        self.assertEqual([item.number for item in order], list(model))

    def test_a_bookmark_stays_where_it_is_while_items_move(self) -> None:
        items, order = [Item(number) for number in range(6)], LinkedList[Item]()
        for item in items:
            order.put_last(item)
        mark = order.bookmark()
        for _ in range(3):
            mark.back()
        order.put_last(items[3])  # which comes next
        order.remove(items[2])  # which came before
        self.assertEqual([item.number for item in iter(mark.forth, None)], [4, 5, 3])
        mark.remove()

    def test_what_was_removed_refers_to_nobody(self) -> None:
        item, order = Item(1), LinkedList[Item]()
        order.put_last(item)
        order.remove(item)
        self.assertEqual((item.newer, item.older), (None, None))


class AgendaTests(TestCase):
    @given(st.lists(st.tuples(st.sampled_from("aaapow"), st.integers(0, 99)), max_size=200))
    def test_what_is_wanted_comes_in_order(self, actions: list[tuple[str, int]]) -> None:
        unwanted, model = set[int](), list[tuple[int, int]]()
        agenda = LazyHeap[int, int](lambda item: item not in unwanted, lambda: 3)
        for number, (action, key) in enumerate(actions):
            if action == "a":
                agenda.push(key, number)
                heappush(model, (key, number))
            elif action == "w":
                unwanted.add(number - 1)
            elif agenda.first is not None:
                first, item = agenda.first
                while item not in unwanted and model[0][1] in unwanted:
                    heappop(model)
                if item in unwanted:
                    agenda.pop()
                    continue
                self.assertEqual((first, item), heappop(model))
                if action == "p":
                    self.assertEqual(agenda.pop(), item)
                else:
                    agenda.put_off(first + key)
                    heappush(model, (first + key, item))
        rest = [agenda.pop() for _ in range(len(agenda))]
        kept = [item for _, item in sorted(model) if item not in unwanted]
        self.assertEqual([item for item in rest if item not in unwanted], kept)

    def test_the_unwanted_go_a_few_at_a_time(self) -> None:
        wanted, asked = set[int](), list[int]()

        def is_wanted(item: int) -> bool:
            asked.append(item)
            return item in wanted

        agenda = LazyHeap[int, int](is_wanted, lambda: 10)
        for number in range(10_000):
            wanted.discard(number - 10)
            wanted.add(number)
            asked.clear()
            agenda.push(number, number)
            self.assertLessEqual(len(asked), 4)
            self.assertLessEqual(len(agenda), 60)
        kept = {agenda.pop() for _ in range(len(agenda))}
        self.assertLessEqual(wanted, kept)
