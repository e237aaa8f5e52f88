"""The parts of the benchmark suite that compute: numbers, bounds, and the report that is made of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase
from xml.etree import ElementTree

from bench.bounds import BOUNDS, Bound, Verdict, judge
from bench.cases import CASES, QUICK
from bench.chart import svg
from bench.measure import load_arguments
from bench.readme import figures, put_in
from bench.report import bounds_table, markdown, number, summary, table
from bench.results import Results, Run, numbers, waiting
from bench.servers import PEERS, Place

DOCUMENTS = Path(__file__).parents[2] / "docs" / "benchmarks"
ABOUT = {"date": "2026-11-23", "command": "python -m bench", "rounds": 1, "machine": {"cores": "2"}, "versions": {}}
WAITED = {"server_waited": 0.25, "client_waited": 0.125}
PUBLISHED = {**WAITED, "events": 5, "events_per_s": 100.0, "cpu_us_per_event": 3.0, "faults": 0}


def level(in_flight: int, cpu_us: float, **more: Any) -> dict[str, Any]:
    """Make what the load client says of one level."""
    spread = {"p50": 1000, "p99": 2000, "max": 3000}
    return {
        "in_flight": in_flight,
        "faults": 0,
        "cpu_us_per_delivery": cpu_us,
        "deliveries_per_s": 1e6 / cpu_us,
        **WAITED,
        "latency_us": spread,
        "last_us": spread,
        **more,
    }


def connect(cpu_us: float) -> dict[str, float]:
    """Make what the load client says of connecting."""
    return {
        "connections": 10,
        "seconds": 0.5,
        "cpu_us_per_connection": cpu_us,
        "bytes_per_connection": 2048.0,
        **WAITED,
    }


def everything() -> Results:
    """Make the results of a run of everything, in which all servers are alike."""
    runs = []
    for case in CASES:
        for peer in case.peers:
            result: dict[str, Any] = {"connect": connect(10)}
            if case.mode == "fanout":
                result |= {"levels": [level(count, 2.5) for count in case.in_flight], "peak_bytes": 1e6}
            if case.mode == "publish":
                result = {"publish": PUBLISHED}
            runs.append(Run(case.name, peer, 1, result))
    return Results(ABOUT, runs)


def cpu(*rounds: dict[str, float]) -> Results:
    """Make results of which only the CPU per delivery matters, by peer, in each round."""
    runs = [
        Run("websocket-1000", peer, at, {"levels": [level(1, value)]})
        for at, peers in enumerate(rounds, 1)
        for peer, value in peers.items()
    ]
    return Results(ABOUT, runs)


class ResultsTests(TestCase):
    def test_numbers_are_named_by_what_is_in_flight(self) -> None:
        found = numbers({"levels": [level(1, 5.0), level(16, 0.5)], "connect": connect(12.5)})
        self.assertEqual((found["1:cpu_us"], found["16:cpu_us"], found["16:per_s"]), (5.0, 0.5, 2e6))
        self.assertEqual((found["1:p50_ms"], found["1:p99_ms"], found["1:last_max_ms"]), (1.0, 2.0, 3.0))
        self.assertEqual((found["connect_cpu_us"], found["connect_s"], found["bytes"]), (12.5, 0.5, 2048.0))

    def test_a_part_waits_as_long_as_the_one_that_waits_longer(self) -> None:
        result = {"levels": [level(1, 5.0), level(16, 1.0, client_waited=0.5)], "connect": connect(5.0)}
        self.assertEqual(waiting(result), [0.25, 0.5])
        self.assertEqual(waiting({"connect": connect(5.0)}), [0.25])
        self.assertEqual(waiting({"error": "it fell over"}), [])

    def test_the_median_is_over_the_rounds(self) -> None:
        results = cpu({"pushd": 9.0}, {"pushd": 1.0}, {"pushd": 2.0})
        self.assertEqual(results.median("websocket-1000", "pushd", "1:cpu_us"), 2.0)
        self.assertIsNone(results.median("websocket-1000", "nchan", "1:cpu_us"))

    def test_a_ratio_is_the_median_of_those_within_the_rounds(self) -> None:
        results = cpu({"pushd": 6.0, "floor": 3.0}, {"pushd": 30.0, "floor": 10.0}, {"pushd": 8.0, "floor": 8.0})
        mine, theirs = (("websocket-1000", peer, "1:cpu_us") for peer in ("pushd", "floor"))
        self.assertEqual(results.ratio(mine, theirs), 2.0)  # of 2, 3 and 1; that of the medians is 1

    def test_a_round_that_lacks_one_of_them_does_not_count(self) -> None:
        results = cpu({"pushd": 6.0}, {"pushd": 4.0, "floor": 2.0})
        mine, theirs = (("websocket-1000", peer, "1:cpu_us") for peer in ("pushd", "floor"))
        self.assertEqual(results.ratio(mine, theirs), 2.0)

    def test_runs_that_failed_or_missed_events_are_errors(self) -> None:
        good = Run("sse-1000", "pushd", 1, {"levels": [level(1, 5.0)]})
        missed = Run("sse-1000", "nchan", 1, {"levels": [level(1, 5.0, faults=1)]})
        refused = Run("publish-post", "nchan", 1, {"publish": PUBLISHED | {"faults": 2}})
        failed = Run("sse-1000", "ws", 1, {"error": "it fell over"})
        self.assertEqual(Results(ABOUT, [good, missed, refused, failed]).errors(), [missed, refused, failed])

    def test_what_was_saved_is_read_again(self) -> None:
        results = everything()
        with TemporaryDirectory() as folder:
            path = Path(folder, "results.json")
            results.save(path)
            again = Results.load(path)
        self.assertEqual((again.about, again.runs), (results.about, results.runs))


class BoundsTests(TestCase):
    def test_a_bound_holds_up_to_its_limit_or_below_it(self) -> None:
        for relation, holding in (("at most", [1.0, 2.0]), ("less than", [1.0]), ("at least", [2.0, 3.0])):
            bound = Bound("something", relation, 2.0, lambda results: None)
            self.assertEqual([value for value in (1.0, 2.0, 3.0) if bound.holds(value)], holding, relation)

    def test_what_was_not_measured_neither_holds_nor_fails(self) -> None:
        verdicts = judge(Results(ABOUT, []))
        self.assertEqual({verdict.text for verdict in verdicts}, {"not measured"})
        self.assertEqual(len(verdicts), len(BOUNDS))

    def test_a_run_of_everything_measures_every_bound(self) -> None:
        self.assertEqual([verdict.bound.text for verdict in judge(everything()) if verdict.value is None], [])

    def test_the_value_is_computed_from_the_results(self) -> None:
        results = cpu({"pushd": 3.0, "floor": 2.0, "nchan": 4.0, "ws": 6.0})
        found = {verdict.bound.text: verdict for verdict in judge(results) if verdict.value is not None}
        self.assertEqual({text.rpartition("÷ ")[2]: one.value for text, one in found.items()},
                         {"bare C loop": 1.5, "nchan": 0.75, "ws": 0.5})  # fmt: skip
        self.assertEqual([one.text for one in found.values()], ["**does not hold**", "holds", "holds"])

    def test_publishing_is_compared_with_twisted_web_whatever_the_way(self) -> None:
        rates = [("publish-post", "twisted.web", 100.0), ("publish-batch", "pushd", 3000.0)]
        runs = [Run(case, peer, 1, {"publish": PUBLISHED | {"events_per_s": rate}}) for case, peer, rate in rates]
        (verdict,) = (one for one in judge(Results(ABOUT, runs)) if one.value is not None)
        self.assertEqual((verdict.value, verdict.text), (30.0, "holds"))


class CasesTests(TestCase):
    def test_every_peer_of_a_case_can_be_measured_in_it(self) -> None:
        place = Place(Path("/tmp"), Path("/tmp"), 1, 2, Path("/tmp/crt"), Path("/tmp/key"))
        for case in (*CASES, *QUICK):
            for peer in case.peers:
                with self.subTest(f"{case.name}, {peer}"):
                    arguments = load_arguments(case, PEERS[peer], place)
                    self.assertIn(f"--port={2 if case.tls else 1}", arguments)
                    if case.mode != "publish":
                        self.assertIn(f"--path={PEERS[peer].paths[case.transport]}", arguments)
                    if case.mode != "connect":
                        self.assertIn(f"--way={PEERS[peer].ways[case.way].kind}", arguments)

    def test_names_are_different(self) -> None:
        self.assertEqual(len({case.name for case in CASES}), len(CASES))

    def test_the_quick_cases_are_smaller_ones_of_the_others(self) -> None:
        by_name = {case.name: case for case in CASES}
        for case in QUICK:
            whole = by_name[case.name]
            changed = {one.name for one in fields(case) if getattr(case, one.name) != getattr(whole, one.name)}
            self.assertLessEqual(changed, {"peers", "seconds", "settle_s", "subscribers"})
            self.assertLessEqual((case.seconds, case.subscribers), (whole.seconds, whole.subscribers))


class ReportTests(TestCase):
    def test_numbers_have_three_digits_that_count(self) -> None:
        cases = [
            (0.123456, "0.123"),
            (12.345, "12.3"),
            (668400.0, "668,000"),
            (1234.0, "1,230"),
            (0.0, "0"),
            (1, "1"),
        ]
        self.assertEqual([number(value) for value, _ in cases], [text for _, text in cases])
        self.assertEqual(number(None), "-")

    def test_a_table_has_its_numbers_at_the_right(self) -> None:
        self.assertEqual(
            table(("server", "n"), [["pushd", "1"], ["nchan", "-"]]),
            "| server | n |\n|---|--:|\n| pushd | 1 |\n| nchan | - |",
        )

    def test_the_bounds_say_what_was_wanted_and_measured(self) -> None:
        bound = Bound("Idle memory", "at most", 10, lambda results: None, "KB")
        said = bounds_table([Verdict(bound, 12.0), Verdict(bound, 9.5), Verdict(bound, None)])
        self.assertIn("| Idle memory | at most 10 KB | 12 KB | **does not hold** |", said)
        self.assertIn("| Idle memory | at most 10 KB | 9.5 KB | holds |", said)
        self.assertIn("| Idle memory | at most 10 KB | - | not measured |", said)

    def test_every_case_and_server_that_was_measured_is_in_it(self) -> None:
        said = markdown(everything())
        for case in CASES:
            self.assertIn(case.title, said)
        for peer in PEERS.values():
            self.assertIn(f"| {peer.title} |", said)

    def test_what_failed_is_said(self) -> None:
        results = Results(ABOUT, [Run("sse-1000", "ws", 3, {"error": "it fell over"})])
        self.assertIn("- sse-1000, ws (Node), round 3: it fell over", markdown(results))
        self.assertIn("failed: sse-1000, ws, round 3", summary(results))

    def test_the_chart_has_a_bar_for_each_number_by_its_size(self) -> None:
        results = cpu({"pushd": 2.0, "nchan": 4.0})
        rects = ElementTree.fromstring(svg(results)).iter("{http://www.w3.org/2000/svg}rect")
        widths = {rect.get("class"): float(rect.get("width", "")) for rect in rects if rect.get("class") != "page"}
        self.assertEqual(widths["other"], 2 * widths["pushd"])
        self.assertEqual(len(widths), 2)

    def test_the_readme_shows_what_was_measured_last(self) -> None:
        root = Path(__file__).parent.parent.parent
        readme = (root / "README.rst").read_text()
        stored = Results.load(root / "docs" / "benchmarks" / "fan-out.json")
        self.assertIn(figures(stored), readme, "python -m bench.readme")
        self.assertEqual(put_in(readme, stored), readme)

    def test_the_report_that_is_published_is_what_its_results_say(self) -> None:
        results = Results.load(DOCUMENTS / "fan-out.json")
        self.assertEqual((DOCUMENTS / "fan-out.md").read_text(), markdown(results))
        self.assertEqual((DOCUMENTS / "fan-out.svg").read_text(), svg(results))
