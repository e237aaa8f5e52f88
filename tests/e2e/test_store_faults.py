"""What becomes of a daemon whose disk is full or cannot be written, and of one that finds a store it cannot use."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from signal import SIGKILL, SIGTERM
from time import monotonic, time

import pytest
from websockets.sync.client import connect

from tests.e2e.daemon import Answer, Daemon, free_port, request, running, tcp, twistd
from tests.e2e.programs import eventually
from tests.e2e.traffic import SseSubscriber, Subscriber, WebSocketSubscriber, history
from tests.rigs.bare_store import StoreRig
from tests.rigs.ledger import Ledger

pytestmark = pytest.mark.timeout(90)

STOPPED = (0, -SIGTERM)

CONFIG = "[channels]\nhistory_size = 1000000\nhistory_bytes = 1GiB\nhistory_age = 1d\n"


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Callable[..., None]]:
    """Mount a file system of some size at `path`; return what mounts it anew with other options.

    Only root may do that, and not in every container; the test is skipped then.
    `tests/component/store/test_faults.py` makes a full disk without.
    """
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None or not _mounts("-t", "tmpfs", "-o", f"size={size}", "pushd-test", str(path)):
        pytest.skip("a file system cannot be mounted here, which takes root and CAP_SYS_ADMIN")

    def remount(options: str) -> None:
        assert _mounts("-o", f"remount,{options}", str(path))

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)


def _mounts(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, timeout=20).returncode == 0


def has_so_many(subscriber: Subscriber, count: int) -> bool:
    """Return whether a subscriber has got so many events."""
    return len(subscriber.view.seen) >= count


def fill(path: Path, size_bytes: int) -> Path:
    """Take room away with a file; answer it."""
    path.write_bytes(b"\0" * size_bytes)
    return path


def post(daemon: Daemon, channel: str, data: str) -> Answer:
    """Publish an event that may be refused."""
    return request(f"{daemon.http}/channels/{channel}", "POST", data.encode())


class TestFullDisk:
    """A full disk costs nobody but the publishers anything, and them only as long as it is full."""

    @pytest.mark.parametrize("durability", ["process", "power"])
    def test_publishers_are_refused_and_nothing_that_was_acknowledged_is_lost(
        self, durability: str, tmp_path: Path
    ) -> None:
        disk, port = tmp_path / "disk", free_port()
        state = f"state_directory = {disk}\nstop_timeout = 2s\ndurability = {durability}\nstore_memory = 1MiB\n"
        with small_disk(disk, "6m"), running(CONFIG, listeners=tcp("http", port), state=state) as daemon:
            ballast = fill(disk / "ballast", 3 << 20)
            ledger, address = Ledger(), f"127.0.0.1:{port}"
            subscribers: list[Subscriber] = [
                SseSubscriber("sse", address, Random(1), ledger, ("a",)),
                WebSocketSubscriber("ws", address, Random(2), ledger, ("a",), "a"),
            ]
            for subscriber in subscribers:
                subscriber.stays.set()
                subscriber.start()
            eventually(lambda: daemon.has_subscribers("a", 2), "both are subscribed")

            def publish() -> Answer:
                sent = ledger.send(f"{len(ledger.sent)} {'x' * 5000}", ("a",), monotonic())
                answer = post(daemon, "a", sent.data)
                if answer.status == 201:
                    sent.answers.append((answer.json()["id"], answer.json()["offset"], monotonic()))
                return answer

            while (answer := publish()).status == 201:
                assert len(ledger.sent) < 2000
            assert (answer.status, answer.json()["title"]) == (507, "Insufficient Storage")
            assert answer.json()["detail"] == "the disk of the store is full; try again when there is room"
            for _ in range(20):
                assert publish().status == 507
            self._others_are_told_too(daemon)

            # Everybody else goes on
            assert daemon.has_subscribers("a", 2)
            assert request(f"{daemon.http}/healthz").status == 200
            acknowledged = [sent.answers[0][0] for sent in ledger.sent.values() if sent.answers]
            assert [seen.id for seen in history(address, "a")] == acknowledged
            for one in subscribers:
                eventually(partial(has_so_many, one, len(acknowledged)), f"{one.name} has everything")

            # There is room again
            ballast.unlink()
            for _ in range(20):
                assert publish().status == 201
            assert daemon.log.count("publishing is refused: the disk of the store is full") == 1
            assert daemon.log.count("publishing works again") == 1

            # Nothing is lost by a kill -9 on a full disk either
            ballast = fill_up(disk / "ballast")
            while publish().status == 201:
                pass
            daemon.signal(SIGKILL)
            daemon.wait()
            daemon.launch()
            if daemon.wait() != 0:
                assert re.search(r"^pushd: the store .* cannot be used: .*full", daemon.stderr, re.M), daemon.stderr
            ballast.unlink()
            daemon.start()
            assert publish().status == 201
            count = sum(bool(sent.answers) for sent in ledger.sent.values())
            for one in subscribers:
                eventually(partial(has_so_many, one, count), f"{one.name} has everything")
                one.stopping.set()
            ledger.histories["a"] = history(address, "a")
            assert ledger.faults() == []
            assert "Traceback" not in daemon.log + daemon.stderr

    def _others_are_told_too(self, daemon: Daemon) -> None:
        data = "y" * 5000
        lines = b"".join(json.dumps({"channel": "a", "data": data}).encode() + b"\n" for _ in range(3))
        answers = request(f"{daemon.http}/publish", "POST", lines).body.splitlines()
        assert [json.loads(line)["error"]["status"] for line in answers] == [507] * 3
        with connect(daemon.ws, proxy=None) as socket:
            socket.send(json.dumps({"type": "publish", "channel": "a", "data": data, "ref": 7}))
            answer = json.loads(socket.recv(10))
            assert (answer["type"], answer["status"], answer["ref"]) == ("error", 507, 7)


def fill_up(path: Path) -> Path:
    """Take all the room away with a file; answer it."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096) == 4096:
                pass
        except OSError:
            pass
    return path


class TestReadOnly:
    def test_a_file_system_that_cannot_be_written_is_said_in_one_line(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        with (
            small_disk(disk, "6m") as remount,
            running(CONFIG, listeners=tcp("http"), state=f"state_directory = {disk}\n") as daemon,
        ):
            daemon.publish("a", "hello")
            assert daemon.stop() in STOPPED
            remount("ro")
            done = twistd("-n", "pushd", "--check", "--config", str(daemon.config), directory=tmp_path)
            assert (done.returncode, done.stderr) == (
                1,
                f"pushd: {disk}: cannot be written: {disk} is not writable\n",
            )
            lines = why_not(tmp_path, daemon.config)
            assert lines == [f"{disk}/pushd.lock: cannot be opened: Read-only file system"] * 2
            remount("rw")


def why_not(directory: Path, config: Path, *, is_checked: bool = False, in_background: bool = True) -> list[str]:
    """Return the lines that say why a daemon does not start: with -n, in the background, and by --check."""
    lines = []
    for arguments in (("-n", "--pidfile=", "pushd"), *([("-n", "pushd", "--check")] if is_checked else ())):
        done = twistd(*arguments, "--config", str(config), directory=directory)
        assert done.returncode == 1, done
        assert re.fullmatch(r"pushd: .*\n", done.stderr), done
        lines.append(done.stderr[len("pushd: ") : -1])
    if not in_background:
        return lines
    log, pid = directory / "twistd.log", directory / "twistd.pid"
    done = twistd(f"--pidfile={pid}", f"--logfile={log}", "pushd", "--config", str(config), directory=directory)
    assert done.returncode == 1, done
    assert "StartFailed: " in done.stderr, done  # of which twistd shows the first 100 bytes
    eventually(lambda: not pid.exists(), "no pidfile is left")
    text = log.read_text()
    assert "Traceback" not in text + done.stderr, text
    (critical,) = re.findall(r"#critical\] (.*)\n", text)
    return [*lines, critical]


def make(directory: Path) -> None:
    """Make a store with some events."""
    stored = StoreRig(directory, started=time())
    for number in range(300):
        stored.publish("a", "b", data=b"%d" % number + b"x" * 500)
    stored.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"This is not a database.\n" * 1000)


def others(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")


def later(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20_000])


def nearly_empty(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flipped(path: Path) -> None:
    """Change bits where SQLite keeps what the tables are."""
    damaged = bytearray(path.read_bytes())
    for place in range(100, 200):
        damaged[place] ^= 0x41
    path.write_bytes(damaged)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no database": (no_database, "is damaged: file is not a database. Put a copy of it back, or move it away"),
    "of another program": (others, "pushd.db is a database, but not pushd's; wanted a store or no such file"),
    "of a later version": (
        later,
        r"was written by a later pushd \(its version is 7\); wanted that one, or another",
    ),
    "cut off": (cut_off, "is damaged: database disk image is malformed. Put a copy of it back, or move it away"),
    "nearly empty": (nearly_empty, "is damaged: .*. Put a copy of it back, or move it away"),
    "changed bits": (flipped, "is damaged: .*. Put a copy of it back, or move it away"),
}


class TestUnusable:
    @pytest.mark.parametrize("what", DAMAGES)
    def test_what_is_wrong_and_what_can_be_done_is_said_in_one_line(self, what: str, tmp_path: Path) -> None:
        damage, says = DAMAGES[what]
        state = tmp_path / "state"
        make(state)
        damage(state / "pushd.db")
        before = (state / "pushd.db").read_bytes()
        config = tmp_path / "pushd.ini"
        config.write_text(f"[pushd]\nstate_directory = {state}\n{tcp('http')}")
        # One of them by all ways to start, the others by the shortest
        lines = why_not(tmp_path, config, is_checked=what == "no database", in_background=what == "no database")
        assert re.search(f"pushd.db {says}|{says}", lines[0]), lines
        assert len(set(lines)) == 1, lines  # with -n, in the background and by --check
        assert (state / "pushd.db").read_bytes() == before

    def test_a_damaged_event_is_refused_with_the_reason_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        with running(CONFIG, listeners=tcp("http"), starts=False) as daemon:
            state = daemon.directory / "state"
            make(state)
            path = state / "pushd.db"
            path.write_bytes(path.read_bytes().replace(b"17" + b"x" * 100, b"17" + b"y" * 100))
            daemon.start()
            answer = request(f"{daemon.http}/channels/a/events?since=earliest")
            assert answer.status == 503
            assert re.search(r"the store is damaged: event \d+ of channel 'a'", answer.json()["detail"]), answer
            daemon.publish("a", "more")
            daemon.publish("c", "other")
            assert len(daemon.get("/channels/c/events?since=earliest")["events"]) == 1
            assert "Traceback" not in daemon.log
            done = twistd("-n", "pushd", "--check", "--config", str(daemon.config), directory=tmp_path)
            assert done.returncode == 1
            assert re.search(
                "^pushd: the store .*: events .* of channel 'a' are damaged: their checksum", done.stderr
            )


class TestLoss:
    """What a client is told if acknowledged events are gone."""

    @pytest.mark.parametrize("what", ["bit", "no log", "no file"])
    def test_a_kill_and_a_damaged_log_begin_a_new_epoch_with_a_warning(self, what: str) -> None:
        with running(CONFIG, listeners=tcp("http")) as daemon:
            ids = [daemon.publish("a", f"{number}")["id"] for number in range(60)]
            daemon.signal(SIGKILL)
            daemon.wait()
            log = daemon.directory / "state" / "pushd.db-wal"
            if what == "bit":
                damaged = bytearray(log.read_bytes())
                damaged[len(damaged) * 2 // 3] ^= 1
                log.write_bytes(damaged)
            elif what == "no log":
                log.unlink()
            else:
                log.with_name("pushd.db").unlink()
            daemon.start()
            (warning,) = [line for line in daemon.log.splitlines() if "is not the one that was left" in line]
            assert "older positions are not recovered" in warning
            for position in (ids[0], ids[len(ids) // 2], ids[-1]):
                assert daemon.get(f"/channels/a/events?since={position}")["recovered"] is False
            assert not {daemon.publish("a", "new")["id"] for _ in range(60)} & set(ids)
            assert "Traceback" not in daemon.log


class TestTwoDaemons:
    def test_the_second_one_refuses_to_start_and_says_who_has_the_state_directory(self, tmp_path: Path) -> None:
        with running(listeners=tcp("http")) as daemon:
            config = tmp_path / "pushd.ini"
            config.write_text(f"[pushd]\nstate_directory = {daemon.directory}/state\n{tcp('http')}")
            lines = why_not(tmp_path, config)
            state = f"the state directory {daemon.directory}/state"
            wanted = f"another pushd, process {daemon.pid}, uses {state}; stop it, or give this one its own, see "
            wanted += "[pushd] state_directory"
            assert lines == [wanted] * 2
            daemon.publish("a", "still there")
            done = twistd("-n", "pushd", "--check", "--config", str(config), directory=tmp_path)
            assert re.search(r"^the store .* is fine: channels: 1, events: 1, bytes: 11$", done.stdout, re.M), done

    def test_after_a_kill_the_next_one_starts(self) -> None:
        with running(listeners=tcp("http")) as daemon:
            daemon.publish("a", "1")
            daemon.signal(SIGKILL)
            daemon.wait()
            daemon.start()
            assert daemon.publish("a", "2")["offset"] == 2
