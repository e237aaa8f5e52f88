"""The fetcher: each job is done once for all its readers, in the turns of their owners, and everybody is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import Unavailable
from pushd.store.sqlite import fetcher
from pushd.store.sqlite.fetcher import Fetcher, Job
from pushd.store.sqlite.reader import BlockReader

READER = cast(BlockReader, object())


class FetcherTests(SynchronousTestCase):
    """The thread does its work when the test says so."""

    def setUp(self) -> None:
        self.thread: list[Callable[[], None]] = []
        self.fetcher = Fetcher(READER, self.in_thread)
        self.read: list[str] = []
        self.kept: list[str] = []
        self.told: list[tuple[str, Unavailable | None]] = []
        self.gone: set[str] = set()

    def in_thread(self, function: Callable[..., Any], *args: object) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def work() -> None:
            execute(function, *args).chainDeferred(done)

        self.thread.append(work)
        return done

    def work(self) -> None:
        self.thread.pop(0)()

    def fetch(
        self,
        key: str,
        reader: str | None = None,
        owner: str | None = None,
        error: Exception | None = None,
        is_outdated: bool = False,
    ) -> None:
        """Ask for the job `key`, for a reader of that name or another one."""

        def read(blocks: BlockReader) -> Callable[[], None]:
            self.assertIs(blocks, READER)
            self.read.append(key)
            if error is not None:
                raise error
            return lambda: self.kept.append(key)

        name = reader or key
        job = Job((key, 0, 0), read, lambda: is_outdated)
        self.fetcher.fetch(job, owner, lambda: name in self.gone, lambda error: self.told.append((name, error)))

    def test_a_job_is_done_once_for_all_who_wait_for_it_also_while_it_is_being_read(self) -> None:
        self.fetch("a", "first")
        self.fetch("a", "second")
        self.assertEqual((len(self.thread), self.told), (1, []))
        self.work()
        self.assertEqual((self.read, self.kept), (["a"], ["a"]))
        self.assertEqual(self.told, [("first", None), ("second", None)])
        self.fetch("a", "third")
        self.work()
        self.assertEqual(self.read, ["a", "a"])
        self.assertEqual(self.fetcher._by_key, {})

    def test_only_so_many_wait_for_one_job(self) -> None:
        self.patch(fetcher, "_READERS", 2)
        for number in range(5):
            self.fetch("a", str(number))
        self.work()
        self.assertEqual([name for name, _ in self.told], ["0", "1"])
        self.work()
        self.assertEqual([name for name, _ in self.told], list("01234"))
        self.assertEqual((self.thread, self.fetcher._by_key), ([], {}))

    def test_owners_take_turns_and_some_jobs_are_done_together(self) -> None:
        self.patch(fetcher, "_JOBS", 3)
        self.fetch("first")
        for number in range(4):
            self.fetch(f"mallory {number}", owner="mallory")
        self.fetch("ada", owner="ada")
        while self.thread:
            self.work()
        self.assertEqual(self.read, ["first", "mallory 0", "ada", "mallory 1", "mallory 2", "mallory 3"])

    def test_nothing_is_read_for_those_who_are_gone(self) -> None:
        self.fetch("busy")
        self.fetch("a", "one")
        self.fetch("a", "two")
        self.fetch("b")
        self.gone |= {"one", "two"}
        self.work()
        self.fetch("a", "three")  # while the thread reads
        self.work()
        self.work()
        self.assertEqual(self.read, ["busy", "b", "a"])
        self.assertEqual([name for name, _ in self.told], ["busy", "one", "two", "b", "three"])

    def test_an_error_is_told_unless_what_was_read_may_be_gone(self) -> None:
        error = Unavailable("unreadable")
        self.fetch("a", error=error)
        self.fetch("b", error=error, is_outdated=True)
        self.fetch("c")
        while self.thread:
            self.work()
        self.assertEqual(self.told, [("a", error), ("b", None), ("c", None)])
        job = Job(("a", 0, 0), lambda reader: self.fail(), lambda: False)
        job.read = lambda reader: lambda: self.kept.append("at once")
        job.run(READER)
        self.assertEqual(self.kept, ["c", "at once"])

    def test_after_a_fault_everybody_is_told_and_it_goes_on(self) -> None:
        self.fetch("a", error=ZeroDivisionError())
        self.fetch("b")
        while self.thread:
            self.work()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        (name, error), other = self.told
        assert error is not None
        self.assertEqual((name, other), ("a", ("b", None)))
        self.assertIn("a fault in pushd", error.detail)

    def test_a_reader_that_raises_does_not_stop_the_others(self) -> None:
        def fault(error: Unavailable | None) -> None:
            raise ZeroDivisionError

        job = Job(("a", 0, 0), lambda reader: lambda: None, lambda: False)
        self.fetcher.fetch(job, None, lambda: False, fault)
        self.fetch("b")
        while self.thread:
            self.work()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.told, [("b", None)])
