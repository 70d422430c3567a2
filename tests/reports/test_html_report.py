"""`mlpack report`: what the page of an artifact says, and what it leaves out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from hand_made import CANDIDATES, FULL, candidate, latency, publish_by_hand, timings

import mlpack.reports

VENDOR = Path(mlpack.reports.__file__).parent / "vendor"
# dist/chart.umd.min.js of the npm package chart.js 4.6.1.
CHART_JS = "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
MOST_BYTES = 2_000_000
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_a_page_with_everything(rendered):
    page = rendered(timings(), **FULL)
    assert page.sections == {
        "verdict", "candidates", "latency", "components", "model", "lineage", "recipe", "environment",
    }  # fmt: skip
    assert page.headings == [
        "Pass: proven to be inside the limit",
        "int8 dynamic · onnxruntime: chosen out of 4 candidates",
        "5.34 times as fast at batch 1, 5.34 at batch 8",
        "MatMul takes 68% of a request",
        "92% of the compute runs in int8",
        "2 stages in 3.0 s",
        "What was asked for",
        "What it was measured with",
    ]
    for part in ("reviews@1", "0.20 pt", "−0.10 to 0.50", "allowed 0.79 pt", "limit: 1%", "208 → 210", "2 more",
                 "79.20% → 79.00%", "on 1,000 samples", "17.1 → 3.20 ms", "5.34 × the speed, 95% interval 5.10 to 5.60",
                 "4.8 kB → 1.2 kB", "60 calls cannot carry a p99"):  # fmt: skip
        assert part in page.text, part


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("pass", "Even the bad end"),
        ("likely", "About 4,200 such samples would prove it."),
        ("inconclusive", "refuse unless they are forced"),
        ("fail", "Even the good end"),
        ("none", "No limit was set"),
    ],
)
def test_each_verdict_in_plain_words(rendered, verdict, says):
    proof = {"accuracy__samples_to_prove": 4200} if verdict == "likely" else {}
    limit = {"accuracy__limit": None, "accuracy__limit_text": None} if verdict == "none" else {}
    status = "candidate" if verdict == "inconclusive" else "final"
    page = rendered(accuracy__verdict=verdict, status=status, **proof, **limit)
    assert says in page.text
    assert f'class="verdict {verdict}"' in page.raw
    assert ("allowed" in page.text) == (verdict != "none")


def test_what_is_not_accuracy_says_so(rendered):
    assert "this is agreement with the original, not accuracy" in rendered(accuracy__verified_on="agreement").text
    synthetic = rendered(accuracy__verified_on="synthetic", accuracy__verdict="none")
    assert "accuracy on real data is unknown" in synthetic.text
    assert "literally in fp32" in rendered(accuracy__simulated=True).text


def test_sections_without_data_are_left_out(rendered):
    page = rendered(lineage=[], latency=[], environment={})
    assert page.sections == {"verdict", "model"}
    assert "<script" not in page.raw
    assert len(page.raw) < 20_000


def test_another_target_says_why_nothing_was_timed(rendered):
    told = latency(1, baseline=None, optimized=None, speedup=None, speedup_ci95=None,
                   reason="this machine is not NVIDIA A100: latency has to be measured there")  # fmt: skip
    page = rendered(latency=[told])
    assert "Latency was not measured" in page.headings
    assert "This machine is not NVIDIA A100: latency has to be measured there." in page.text
    assert "P50" not in page.text


def test_a_speed_that_may_be_none_is_not_called_one(rendered):
    page = rendered(latency=[latency(1, speedup=1.02, speedup_ci95=[0.9, 1.2]), latency(8, speedup=0.5,
                    speedup_ci95=[0.4, 0.6])])  # fmt: skip
    assert "No difference in speed shown at batch 1; 2.00 times slower at batch 8" in page.headings


def test_what_disturbed_a_timing_stands_beside_it(rendered):
    notes = ["9% of the CPU time went to other processes", "3 launches were taken again"]
    page = rendered(latency=[latency(1, steady=False, notes=notes), latency(8, steady=False, notes=notes)])
    told = page.raw[page.raw.index('<section id="latency"') : page.raw.index('<section id="model"')]
    assert "Not steady:" in told
    assert any(heading.startswith("On a disturbed machine, not to be relied on:") for heading in page.headings)
    assert [told.count(note) for note in notes] == [1, 1]
    assert 'class="notes"' not in rendered().raw


def test_only_what_was_scored_and_timed_is_plotted_and_all_is_listed(rendered):
    page = rendered(**FULL)
    points = page.figures["pareto"]["points"]
    assert [(point["kind"], point["texts"][-1]) for point in points] == [
        ("other", "1"), ("chosen", "2"), ("other", "4"), ("original", "original"),
    ]  # fmt: skip
    lines = points[1]["lines"]
    assert lines[0] == "2  int8 dynamic · onnxruntime"
    assert "drop 0.20 pt (90%: −0.80 to 1.20)" in lines
    assert lines[-1] == "chosen: the fastest of all"
    for each in CANDIDATES:
        assert each["label"] in page.text
        assert each["why"] in page.text
    assert page.text.count("not timed") == 1
    assert page.figures["pareto"]["limit"]["y"] == pytest.approx(79.0 * 0.99)


def test_a_candidate_that_could_not_be_made_is_listed(rendered):
    broken = candidate("fp16 · openvino", score=0, drop=0, ms=None, accuracy=None, size_bytes=None, why="was refused")
    page = rendered(candidates=[*CANDIDATES, broken])
    assert "fp16 · openvino not scored not timed – was refused" in page.text


def test_one_candidate_alone_is_no_plot(rendered):
    page = rendered(candidates=CANDIDATES[1:2], latency=[])
    assert "int8 dynamic · onnxruntime: the only candidate" in page.headings
    assert page.figures == {}


def test_where_lower_is_better_the_plot_is_turned(rendered):
    worse = [candidate("a", score=0.51, drop=0.01, ms=2), candidate("b", score=0.5, drop=0.0, ms=4)]
    changes = {"metric": "mse", "baseline": 0.5, "optimized": 0.51, "drop": 0.01, "drop_ci90": [0.0, 0.02],
               "limit": 0.02, "limit_text": "4%", "errors_baseline": None, "errors_optimized": None}  # fmt: skip
    page = rendered(candidates=worse, **{f"accuracy__{name}": value for name, value in changes.items()})
    plot = page.figures["pareto"]
    assert plot["reverse"] is True
    assert plot["limit"]["y"] == pytest.approx(0.52)
    assert (plot["points"][0]["low"], plot["points"][0]["high"]) == pytest.approx((0.5, 0.52))
    assert "0.5000 → 0.5100" in page.text
    assert " pt" not in page.text


def test_the_front_is_what_no_other_beats_in_both(rendered):
    those = [candidate(str(index), score=score, drop=0.8 - score, ms=ms)
             for index, (score, ms) in enumerate([(0.7, 1), (0.69, 2), (0.75, 3), (0.75, 4), (0.8, 5)])]  # fmt: skip
    front = rendered(candidates=those, latency=[]).figures["pareto"]["front"]
    assert [point["y"] for point in front] == pytest.approx([70, 75, 80])


def test_each_launch_is_shown_with_few_dots_and_its_extremes(rendered):
    timed = timings(calls=5000, launches=3)
    page = rendered(timed, **FULL)
    rows = page.figures["launches-8"]["rows"]
    assert [row["label"] for row in rows] == [
        "original 1", "original 2", "original 3", "optimized 1", "optimized 2", "optimized 3",
    ]  # fmt: skip
    ms = timed["optimized/8/1"]
    assert len(rows[4]["ms"]) == 100
    assert rows[4]["calls"] == 5000
    assert (rows[4]["ms"][0], rows[4]["ms"][-1]) == pytest.approx((ms.min(), ms.max()), rel=1e-3)


def test_the_waterfall_goes_from_one_end_to_the_other(rendered):
    page = rendered(**FULL)
    bars = [tuple(map(float, each)) for each in re.findall(r"margin-left:([\d.]+)%;width:([\d.]+)%", page.raw)]
    ends = [round(left + width, 2) for left, width in bars]
    assert [left for left, _ in bars] == pytest.approx([0, *ends[:-1]])
    assert ends[-1] == pytest.approx(100)


def test_the_request_to_the_original_has_a_waterfall_of_its_own(rendered):
    before = [{"name": "copy in", "p50": 0.5, "share": 0.1}, {"name": "aten::convolution", "p50": 4.5, "share": 0.9}]
    page = rendered(**{**FULL, "components_before": before})
    assert "Where it went before" in page.text
    assert "aten::convolution 4.5" in page.text
    bars = [tuple(map(float, each)) for each in re.findall(r"margin-left:([\d.]+)%;width:([\d.]+)%", page.raw)]
    assert bars[-2:] == [(0, 10), (10, 90)]
    assert "before" not in rendered(name="other", **FULL).text.split("Where the time goes")[1].split("Module")[0]


def test_modules_stand_side_by_side(rendered):
    components = [{"name": "compute", "p50": 1, "share": 1}]
    modules = [{"module": "encoder.layer.10", "baseline": 7.25, "optimized": None}]
    told = rendered(components=components, modules=modules).text
    assert "by module of the original" in told
    assert "encoder.layer.10 7.25 –" in told
    assert "by module" not in rendered(name="other", components=components).text


def test_tables_of_the_quantizing_stage_are_shown_as_they_are(rendered):
    tables = {"ranges": [{"tensor": "relu_1", "low": -0.5, "high": 6.25}], "operators": []}
    page = rendered(reports={"quantize": {"metrics": {}, "tables": tables, "files": []}})
    assert "ranges of the quantized graph (1) tensor low high relu_1 −0.5 6.25" in page.text
    assert "operators of the quantized graph" not in page.text


def test_a_search_shows_what_each_layer_costs(rendered):
    layers = [
        {"layer": "stem", "nodes": ["stem/Conv"], "noise": 1e-4, "share": 0.25},
        {"layer": "head", "nodes": ["head/Gemm"], "noise": 0.01, "share": 0.75},
    ]
    times = [{"module": "head", "before": 0.5, "after": 0.25}]
    reports = {
        "measure_sensitivity": {"tables": {"layers": layers}},
        "time_layers": {"tables": {"modules": times}},
    }
    made = {"method": "static", "rules": "cpu", "details": {"exclude": ["head/Gemm"]}}
    assert "Layer by layer" not in rendered().text
    told = rendered(reports=reports, model__quantization=made).text
    assert "head is the most sensitive layer; 1 of 2 stays in float" in told
    assert "head 20.0 75% 0.500 0.250 float stem 40.0 25% – – int8" in told


def test_what_users_named_stays_text(rendered):
    page = rendered(
        timings(calls=5),
        {
            "quantize": {"tables": {HOSTILE: [{HOSTILE: HOSTILE}]}},
            "measure_sensitivity": {"tables": {"layers": [{"layer": HOSTILE, "nodes": [], "noise": 1, "share": 1}]}},
        },
        source__path=HOSTILE,
        candidates=[{**each, "label": HOSTILE, "why": HOSTILE, "backend": HOSTILE} for each in CANDIDATES],
        components=[{"name": HOSTILE, "p50": 1, "share": 1}],
        lineage=[
            {"stage": HOSTILE, "options": {HOSTILE: [HOSTILE]}, "key": HOSTILE, "seconds": 1, "peak_rss_bytes": 1}
        ],
        latency=[latency(1, notes=[HOSTILE], device=HOSTILE, reason=HOSTILE)],
        accuracy__metric=HOSTILE,
        accuracy__limit_text=HOSTILE,
        target={"name": HOSTILE, "title": HOSTILE},
        environment={HOSTILE: HOSTILE, "libraries": {HOSTILE: HOSTILE}},
        recipe={HOSTILE: HOSTILE},
    )
    assert "<script>alert" not in page.raw
    assert "<img" not in page.raw
    assert len(re.findall("<script", page.raw)) == len(re.findall("</script>", page.raw)) == 3
    assert page.figures["pareto"]["points"][0]["lines"][0] == f"1  {HOSTILE}"


def test_the_page_names_no_other_file_and_runs_its_own_scripts_only(rendered):
    page = rendered(timings(), **FULL)
    own = re.sub(r"<script>.*?</script>", "", page.raw, flags=re.DOTALL)
    assert re.findall(r"https?://|url\(|@import|src=|<base", own) == []
    assert re.findall(r'href="([^"]*)"', own) == ["data:,"]
    scripts = re.findall(r"<script>(.*?)</script>", page.raw, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.raw)[1]
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"&#39;sha256-{digest}&#39;" in policy or f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "sourceMappingURL" not in page.raw
    assert "Permission is hereby granted" in page.raw


def test_the_library_is_the_published_one():
    assert hashlib.sha256((VENDOR / "chart.umd.min.js").read_bytes()).hexdigest() == CHART_JS


def test_a_large_page_is_below_two_megabytes(rendered):
    many = [candidate(f"int8 flavour {index}", score=0.7, drop=0.09, ms=1 + index) for index in range(200)]
    batches = tuple(range(1, 9))
    changes = {**FULL, "candidates": many, "latency": [latency(batch) for batch in batches]}
    page = rendered(timings(calls=2000, launches=12, batches=batches), **changes)
    assert len(page.raw.encode()) < MOST_BYTES
    assert len(rendered(timings(), **FULL).raw.encode()) < 300_000


def test_the_command_says_what_it_wrote_and_overwrites_nothing(place, cli):
    publish_by_hand(place / "artifacts")
    done = cli("report", "--json")
    assert json.loads(done.out) == {
        "path": str(place / "reviews-1.html"),
        "artifact": "reviews@1",
        "size_bytes": (place / "reviews-1.html").stat().st_size,
    }
    (place / "reviews-1.html").write_text("mine")
    refused = cli("report")
    assert refused.code == 2
    assert "reviews-1.html is there already" in refused.err
    assert "--force" in refused.err
    assert (place / "reviews-1.html").read_text() == "mine"
    assert cli("report", "--force").code == 0
    assert "<h1>reviews@1</h1>" in (place / "reviews-1.html").read_text()
    assert cli("report", "reviews@1", "--out", "deep/er/page.html").code == 0
    assert cli("report", "--out", "deep").code == 2
    assert cli("report", "nothing").code == 2


def test_a_page_never_goes_into_the_artifact(place, cli):
    publish_by_hand(place / "artifacts")
    done = cli("report", "--out", "artifacts/reviews/1/report.html", "--force")
    assert done.code == 2
    assert "never changes" in done.err
    assert cli("verify", "reviews@1").code == 0


@pytest.mark.parametrize("file", ["latency-timings.npz", "check_accuracy.json"])
def test_damaged_reports_are_named(place, cli, file):
    stored = publish_by_hand(place / "artifacts", timings(calls=5))
    damaged = stored.path / "reports" / file
    damaged.chmod(0o644)
    damaged.write_bytes(b"\xffnothing")
    done = cli("report")
    assert done.code == 5
    assert f"{file} is damaged" in done.err
    assert "hint: mlpack verify reviews@1" in done.err
