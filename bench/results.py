"""The results of a run of the suite, stored as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Results", "Run", "numbers", "waiting"]


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement of one server."""

    case: str
    """The name of the case."""

    peer: str
    """The name of the server."""

    round: int
    """The round of the measurement, from 1."""

    result: Mapping[str, Any]
    """The output of the load client, or ``error`` with the reason."""


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a result by name; with 16 events in flight, the name is ``16:cpu_us``."""
    found: dict[str, float] = {}
    for level in result.get("levels", ()):
        prefix = f"{level['in_flight']}:"
        found[f"{prefix}cpu_us"] = level["cpu_us_per_delivery"]
        found[f"{prefix}per_s"] = level["deliveries_per_s"]
        for name, short in (("latency_us", ""), ("last_us", "last_")):
            for key, us in level[name].items():
                found[f"{prefix}{short}{key}_ms"] = us / 1000
    if "connect" in result:
        found["connect_cpu_us"] = result["connect"]["cpu_us_per_connection"]
        found["connect_s"] = result["connect"]["seconds"]
        found["bytes"] = result["connect"]["bytes_per_connection"]
    if "publish" in result:
        found["events_per_s"] = result["publish"]["events_per_s"]
        found["event_cpu_us"] = result["publish"]["cpu_us_per_event"]
    if "peak_bytes" in result:
        found["peak_bytes"] = result["peak_bytes"]
    return found


def waiting(result: Mapping[str, Any]) -> list[float]:
    """Return, for each part of a result, the share of time in which server or client waited for their core.

    They wait while another program runs there; a good measurement has little of that.
    """
    parts = [
        *result.get("levels", ()),
        result.get("publish"),
        None if "levels" in result else result.get("connect"),
    ]
    return [max(part["server_waited"], part["client_waited"]) for part in parts if part]


class Results:
    """All measurements of a run, and the machine."""

    def __init__(self, about: Mapping[str, Any], runs: Sequence[Run]) -> None:
        """Combine the facts `about` the whole run with the single measurements."""
        self.about = about
        self.runs = tuple(runs)
        self._numbers = {(run.case, run.peer, run.round): numbers(run.result) for run in runs}

    def by_round(self, case: str, peer: str, name: str) -> dict[int, float]:
        """Return a number by round, for the rounds that measured it."""
        return {
            key[2]: found[name] for key, found in self._numbers.items() if key[:2] == (case, peer) and name in found
        }

    def median(self, case: str, peer: str, name: str) -> float | None:
        """Return the median of a number, or None without measurements."""
        return _median(list(self.by_round(case, peer, name).values()))

    def ratio(self, of: tuple[str, str, str], to: tuple[str, str, str]) -> float | None:
        """Return the median of the ratios within each round of two numbers, each (case, peer, name).

        Servers take turns within a round, so that a longer disturbance affects both.
        """
        mine, theirs = self.by_round(*of), self.by_round(*to)
        return _median([mine[round] / theirs[round] for round in mine if theirs.get(round)])

    def peers(self, case: str) -> list[str]:
        """Return the servers of a case, in the order in which they ran."""
        return list(dict.fromkeys(run.peer for run in self.runs if run.case == case))

    def errors(self) -> list[Run]:
        """Return the measurements that failed or in which a subscriber missed events."""
        return [run for run in self.runs if "error" in run.result or _faults(run.result)]

    def save(self, path: Path) -> None:
        """Write all results as JSON, a measurement on each line."""
        runs = ",\n".join(json.dumps(asdict(run)) for run in self.runs)
        path.write_text(f'{{"about": {json.dumps(self.about, indent=1)},\n"runs": [\n{runs}\n]}}\n')

    @classmethod
    def load(cls, path: Path) -> Results:
        """Return the results written by `save`."""
        saved = json.loads(path.read_text())
        return cls(saved["about"], [Run(**run) for run in saved["runs"]])


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _faults(result: Mapping[str, Any]) -> int:
    parts = [*result.get("levels", ()), result.get("publish", {})]
    return sum(int(part.get("faults", 0)) for part in parts)
