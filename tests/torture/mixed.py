"""Everything at once for a while, and nothing lost: ``python -m tests.torture.mixed [--seconds N]``.

Publishers and subscribers of the crash test write down what they are told and what they see. Meanwhile clients
come and go, some leave without reading, hostile inputs arrive, and the configuration is reloaded. At the end the
ledger must have no fault, and memory and descriptors must be about what they were after a fifth of the time.
Ends with 1 otherwise.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from random import Random
from signal import SIGHUP
from threading import Event, Thread
from time import monotonic, sleep

from tests.e2e.daemon import Daemon, free_port, request, running, tcp
from tests.e2e.test_crash import CONFIG, FORGETFUL, KEPT, Run
from tests.torture.talk import connect, exchange, frame, get, post, upgrade, websocket

LIMIT_MS = 20
"""How much CPU time a turn of the reactor may take, in milliseconds."""

GROWTH = 1.5
"""By how much memory may grow after the first fifth of the time, beside what is kept of events on purpose."""

LIMITS = "[limits]\nconnections_per_address = 0\n"


def churn(url: str, random: Random) -> None:
    """Connect with any transport, and leave at some time, with or without having read."""
    with closing(connect(url)) as connection:
        heads = [get(f"/{kind}?channel=churn/*", close=False) for kind in ("sse", "stream", "poll")]
        connection.sendall(random.choice([*heads, upgrade("/ws?channel=churn/*")]))
        sleep(random.uniform(0, 0.3))
        if random.random() < 0.5:
            connection.recv(65536)


def stall(url: str, random: Random) -> None:
    """Subscribe with 20 connections that read nothing, and publish much to them."""
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(closing(connect(url))).sendall(get("/sse?channel=stalled", close=False))
        for _ in range(10):
            exchange(url, post("/channels/stalled", b"x" * random.randrange(300_000)), seconds=10)
        sleep(1)


def hostile(url: str, random: Random) -> None:
    """Send one of several inputs that are wrong or large."""
    inputs: list[Callable[[], object]] = [
        lambda: exchange(url, post("/publish", b"[\n" * 500_000), seconds=10),
        lambda: exchange(url, post("/publish", b'{"channel":"bad","data":"\xff"}\n' * 10_000), seconds=10),
        lambda: exchange(url, b"\x16\x03\x01" * 1000, seconds=2),
        lambda: exchange(url, get("/poll?channel=**&since=earliest&limit=1000"), seconds=10),
        lambda: exchange(url, get("/poll?channel=**/x&since=earliest", close=False) * 20, seconds=3),
        lambda: exchange(url, get("/nowhere", close=False) * 500 + get("/healthz"), seconds=10),
        lambda: websocket(url, "/ws", frame(b"{") * 1000, seconds=1),
        lambda: websocket(url, "/ws", frame(b'{"type":"subscribe","channel":"a"}') * 1000, seconds=1),
        lambda: websocket(url, "/ws?channel=kept/a&since=earliest", b"\xff" * 100, seconds=1),
    ]
    random.choice(inputs)()


def forever(work: Callable[[str, Random], None], url: str, stopping: Event) -> Thread:
    """Do `work` in a thread until `stopping` is set; the daemon may close connections at will."""
    random = Random(secrets.randbits(64))

    def run() -> None:
        while not stopping.is_set():
            with suppress(OSError):
                work(url, random)

    thread = Thread(target=run, daemon=True)
    thread.start()
    return thread


def fill(daemon: Daemon, channels: int) -> None:
    """Publish an event to each of so many channels."""
    lines = "\n".join(f'{{"channel":"c/{number}","data":"x"}}' for number in range(channels))
    assert request(f"{daemon.http}/publish", "POST", lines.encode()).status == 200


def watch(daemon: Daemon, seconds: float) -> bool:
    """Reload now and then and print figures; return whether memory and descriptors stayed as they were."""
    began, is_other, after_warm_up = monotonic(), False, 0
    step_s = max(1.0, seconds / 20)
    while monotonic() - began < seconds:
        sleep(step_s)
        is_other = not is_other
        daemon.write_config(daemon.config.read_text().replace(LIMITS, "") + (LIMITS if is_other else ""))
        daemon.signal(SIGHUP)
        assert not daemon.has_ended, daemon.log[-4000:]
        assert daemon.turns is not None
        memory = daemon.resident_bytes
        if not after_warm_up and monotonic() - began > seconds / 5:
            after_warm_up = memory
        print(
            f"{monotonic() - began:6.0f} s  {memory / 2**20:6.0f} MiB  {daemon.descriptors:5} descriptors  "
            f"longest turn {daemon.turns.longest_ms:5.1f} ms CPU, {daemon.turns.longest_wall_ms:6.1f} ms",
            flush=True,
        )
    return daemon.resident_bytes < after_warm_up * GROWTH and daemon.descriptors < 500


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.mixed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, stopping = free_port(), Event()
    state = "state_directory = {directory}/state\nstop_timeout = 2s\nstore_size = 1024GiB\nstore_memory = 1MiB\n"
    with running(CONFIG, listeners=tcp("http", port), state=state, measures_turns=True) as daemon:
        fill(daemon, 20_000)
        assert daemon.turns is not None
        daemon.turns.reset()
        run = Run(daemon, f"127.0.0.1:{port}", Random(secrets.randbits(64)))
        for traffic in (*run.subscribers, *run.publishers):
            traffic.start()
        others = [forever(work, daemon.http, stopping) for work in (churn, churn, churn, stall, hostile, hostile)]
        is_steady = watch(daemon, arguments.seconds)
        stopping.set()
        for thread in others:
            thread.join(30)
        longest_ms = daemon.turns.longest_ms
        run.finish()
        faults = run.ledger.faults()
        print(
            f"{len(run.ledger.sent)} events, {run.ledger.acknowledged} acknowledged, to {len(KEPT + FORGETFUL)} "
            f"channels; {len(faults)} faults; longest turn {longest_ms:.1f} ms CPU; "
            f"memory and descriptors {'steady' if is_steady else 'NOT steady'}"
        )
        print("\n".join(faults[:20]))
        assert "Traceback" not in daemon.log, daemon.log[-4000:]
    return 0 if is_steady and not faults and longest_ms <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
