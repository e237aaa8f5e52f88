"""Run every case and print the longest turns: ``python -m tests.torture [--channels N] [--only TEXT]``.

Ends with 1 if any turn took more CPU time than the limit. A turn is what `tests.e2e.measured_twistd` measures.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
from pathlib import Path
from time import monotonic, sleep

from tests.e2e.daemon import Daemon, request, running
from tests.rigs.application import SECRET
from tests.torture.cases import CASES, Case, Target

LIMIT_MS = 20
"""How long a turn of the reactor may take, whatever a client sends."""

ATTEMPTS = 3
"""How often a case is tried that was too slow: the machine has its moods, but never all three times."""

CONFIG = """
[channels:joins/**]
presence = events
[channels:brief/**]
history_age = 8s
[limits]
channels = 2000000
connections_per_address = 0
[site]
demo = yes
"""

GUARDED = """
[auth]
anonymous =
anonymous_subscribe = public/**
[hooks]
before_subscribe = http://127.0.0.1:{port}/
secret = {secret}
breaker_failures = 10000
"""


def fill(daemon: Daemon, channels: int) -> None:
    """Publish one event to each of so many channels."""
    for first in range(0, channels, 50_000):
        lines = (f'{{"channel":"c/{number}","data":"x"}}' for number in range(first, min(first + 50_000, channels)))
        answer = request(f"{daemon.http}/publish", "POST", "\n".join(lines).encode())
        assert answer.status in (200, 207), answer


def busy_s(daemon: Daemon) -> float:
    """Return how much CPU time the daemon has used, in seconds."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def settle(daemon: Daemon, seconds: float = 60) -> None:
    """Wait until it has nothing left to do."""
    end = monotonic() + seconds
    while monotonic() < end:
        before = busy_s(daemon)
        sleep(0.3)
        if busy_s(daemon) - before < 0.02:
            return


def measure(case: Case, target: Target) -> tuple[float, float, str]:
    """Run a case; return the longest turn in ms of CPU time and by the clock, and what it returned."""
    for daemon in (target.daemon, target.guarded):
        settle(daemon)
        assert daemon.turns is not None
        daemon.turns.reset()
    try:
        shown = str(case.run(target))
    except OSError as error:
        shown = f"{type(error).__name__}: {error}"
    for daemon in (target.daemon, target.guarded):
        assert not daemon.has_ended, f"the daemon has died of it: {daemon.stderr}{daemon.log[-4000:]}"
        settle(daemon)
    turns = [one.turns for one in (target.daemon, target.guarded) if one.turns is not None]
    return max(one.longest_ms for one in turns), max(one.longest_wall_ms for one in turns), shown


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--channels", type=int, default=100_000)
    parser.add_argument("--only", default="", help="run only the cases whose names contain this")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results: list[tuple[float, float, str]] = []
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as silent,  # an application that never answers
        running(CONFIG, measures_turns=True) as daemon,
        running(GUARDED.format(port=silent.getsockname()[1], secret=SECRET), measures_turns=True) as guarded,
    ):
        fill(daemon, arguments.channels)
        target = Target(daemon, guarded)
        for case in CASES:
            if arguments.only not in case.name:
                continue
            began = monotonic()
            cpu, wall, shown = measure(case, target)
            for _ in range(ATTEMPTS - 1):
                if cpu <= LIMIT_MS:
                    break
                cpu, wall, shown = min((cpu, wall, shown), measure(case, target))
            results.append((cpu, wall, case.name))
            print(f"{cpu:8.1f} {wall:8.1f} ms {monotonic() - began:6.1f} s  {case.name}  {shown[:100]}", flush=True)
    results.sort(reverse=True)
    print("\nThe longest turns: CPU ms, ms by the clock, case")
    for cpu, wall, name in results[:10]:
        print(f"{cpu:8.1f} {wall:8.1f}  {name}")
    slow = [name for cpu, _, name in results if cpu > LIMIT_MS]
    print(f"{len(results) - len(slow)} passed, {len(slow)} failed")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
