"""Command line of the benchmark suite."""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

from bench import readme
from bench.cases import CASES, QUICK, Case
from bench.machine import build, certificate, machine, versions
from bench.measure import Bench
from bench.report import summary, write
from bench.results import Results, Run, numbers, waiting
from bench.servers import PEERS

_ROOT = Path(__file__).parent.parent
_FILES = 32768


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure pushd and its peers, in turn.",
        epilog=f"Cases: {', '.join(names)}.",
    )
    parser.add_argument("--rounds", type=int, help="how often each is measured; 5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="the most important cases, in less than a minute")
    parser.add_argument("--only", action="append", metavar="CASE", choices=names, help="this case; may be repeated")
    parser.add_argument("--peers", metavar="NAME,...", help=f"only these of {', '.join(PEERS)}")
    parser.add_argument(
        "--nice", type=int, default=0, help="of all that is measured; below 0 as root, on a busy machine"
    )
    parser.add_argument(
        "--to",
        type=Path,
        help="where the report goes: docs/benchmarks, or build/bench if not everything is measured",
    )
    options = parser.parse_args(arguments)
    if options.peers and not set(options.peers.split(",")) <= PEERS.keys():
        parser.error(f"the peers are {', '.join(PEERS)}")
    return options


def _chosen(options: argparse.Namespace) -> list[Case]:
    cases = [case for case in CASES if case.name in options.only] if options.only else CASES
    if options.quick:
        cases = [case for case in QUICK if not options.only or case.name in options.only]
    if options.peers:
        wanted = options.peers.split(",")
        cases = [replace(case, peers=tuple(peer for peer in case.peers if peer in wanted)) for case in cases]
    return [case for case in cases if case.peers]


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, max(_FILES, hard)))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _nice(value: int) -> Iterator[None]:
    """Set the priority of this process, of its children and of its session, which has a priority of its own."""
    group = Path("/proc/self/autogroup")
    has_group = value != 0 and group.exists()
    if value:
        os.setpriority(os.PRIO_PROCESS, 0, value)
    if has_group:
        group.write_text(str(value))
    try:
        yield
    finally:
        if has_group:
            group.write_text("0")


def _run(cases: Sequence[Case], round: int, rounds: int, bench: Bench) -> list[Run]:
    runs: list[Run] = []
    for case in cases:
        for peer in case.peers:
            began = time.monotonic()
            run = Run(case.name, peer, round, bench.measure(case, peer))
            runs.append(run)
            said = run.result.get("error") or "  ".join(
                f"{name} {value:.4g}" for name, value in numbers(run.result).items() if name in _SHOWN
            )
            took = time.monotonic() - began
            waited = max(waiting(run.result), default=0)
            print(
                f"{round}/{rounds} {case.name:22} {peer:12} {took:5.1f} s  waited {waited:3.0%}   {said}",
                flush=True,
            )
    return runs


_SHOWN = {
    "1:cpu_us",
    "16:cpu_us",
    "1:p99_ms",
    "16:per_s",
    "1:waited",
    "connect_cpu_us",
    "connect_s",
    "bytes",
    "events_per_s",
}


def _command(arguments: Sequence[str]) -> str:
    """Return the command that repeats this run, without the folder of its results."""
    kept, words = list[str](), iter(arguments)
    for word in words:
        if word == "--to":
            next(words, None)
        elif not word.startswith("--to="):
            kept.append(word)
    return shlex.join(["python", "-m", "bench", *kept])


def main(arguments: Sequence[str]) -> int:
    """Measure, and write the report."""
    options = _options(arguments)
    cases = _chosen(options)
    rounds = options.rounds or (1 if options.quick else 5)
    is_whole = not (options.quick or options.only or options.peers)
    to = options.to or _ROOT / ("docs/benchmarks" if is_whole else "build/bench")
    to.mkdir(parents=True, exist_ok=True)
    _raise_file_limit()
    about = {
        "date": date.today().isoformat(),
        "command": _command(arguments),
        "machine": machine(),
        "versions": versions(),
    }
    with _nice(options.nice), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        build(Path(folder))
        bench = Bench(Path(folder), *certificate(Path(folder)))
        for peer in dict.fromkeys(peer for case in cases for peer in case.peers):
            bench.check(peer)
        runs: list[Run] = []
        for round in range(1, rounds + 1):
            runs += _run(cases, round, rounds, bench)
            results = Results({**about, "rounds": round}, runs)
            results.save(to / "fan-out.json")  # a long run may be interrupted
            write(results, to)
    if is_whole and options.to is None:
        readme.main()
    print(f"\n{summary(results)}\nThe report is in {to}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
