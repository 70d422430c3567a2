"""Renders the results into Markdown: the READMEs, benchmarks/serving.md, measure.md, gpu-*.md and results/speed.md.

`python benchmarks/tables.py` writes them again; a test holds that they say what the results say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import stdev
from typing import Any

import compress_page
import gpu_page
import record
import serving_page
from markdown_table import table

Result = dict[str, Any]
NONE_YET = "No result yet."
_TELLING_MB = 50
# An interval over launches that hardly agree says no more than this.
_BEYOND = 1_000
_TELLING_DB = 0.1
_TELLING_GAIN = 0.03


def render_all() -> None:
    """Write every table again from the results that there are."""
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")


def rendered() -> dict[Path, str]:
    """The files that hold tables, and what they should say."""
    readme, recipe_list = record.ROOT / "benchmarks" / "README.md", record.ROOT / "recipes" / "README.md"
    measure = record.ROOT / "benchmarks" / "measure.md"
    load = record.ROOT / "benchmarks" / "serving.md"
    texts = {
        readme: readme.read_text(encoding="utf-8"),
        measure: measure.read_text(encoding="utf-8"),
        recipe_list: recipe_list.read_text(encoding="utf-8"),
    }
    for name, draw in _OF_README:
        texts[readme] = between(texts[readme], name, shown(name, draw))
    texts[recipe_list] = between(texts[recipe_list], "recipes", shown("recipes", recipes))
    front = record.ROOT / "README.md"
    texts[load] = between(load.read_text(encoding="utf-8"), "serving_load", shown("serving_load", serving_load))
    texts[front] = between(front.read_text(encoding="utf-8"), "serving", shown("serving", serving))
    for name, draw in (("error_rates", error_rates), ("repeatability", repeatability), ("identical", identical)):
        texts[measure] = between(texts[measure], name, shown(name, draw))
    content = record.read("speed")
    if content is not None:
        title = "# Speed of what comes out\n\nRendered from speed.json by benchmarks/tables.py; see ../README.md.\n"
        texts[record.RESULTS / "speed.md"] = f"{title}\n{shown('speed', speed)}\n"
    for path in sorted(record.RESULTS.glob("gpu-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        texts[record.ROOT / "benchmarks" / f"{path.stem}.md"] = gpu_page.page(found)
    return texts


def between(text: str, name: str, content: str) -> str:
    """The text with what lies between `<!-- NAME -->` and `<!-- /NAME -->` replaced."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    changed, count = re.subn(pattern, lambda found: f"{found[1]}{content}\n{found[2]}", text, flags=re.DOTALL)
    assert count == 1, f"no place for {name}"
    return changed


def shown(name: str, draw: Callable[[Result], str]) -> str:
    """A result's table under the line that says when and where it was measured."""
    content = record.read(name)
    if content is None:
        return NONE_YET
    return f"{where(content)}\n\n{draw(content)}"


def where(content: Result) -> str:
    """One line: date, machine, versions, and whether the machine was quiet."""
    machine, libraries = content["machine"], content["libraries"]
    versions = ", ".join(f"{name} {libraries[name]}" for name in ("torch", "onnxruntime", "openvino"))
    short = " **Short timing runs: a trial of the script, not a measurement.**" if content.get("quick") else ""
    return (
        f"{content['date'][:10]}, {content['cpu']} ({machine['microarchitecture']}), {machine['threads']} threads, "
        f"load average {machine['load_average'][0]} at the end; Python {content['python']}, {versions}, "
        f"mlpack {content['mlpack']}.{short}"
    )


def startup(content: Result) -> str:
    """Median and worst whole-process time of each command, and the heavy libraries that it imports."""
    rows = [
        [
            f"`{row['command']}`",
            f"{row['median_s']:.3f} s",
            f"{row['worst_s']:.3f} s",
            ", ".join(row["imported"]) or "none",
        ]
        for row in content["commands"]
    ]
    head = ["command", f"median of {content['runs']}", "worst", "of the heavy libraries it imports"]
    return f"{table(head, rows)}\n\nAllowed: a median of {content['limit_s']} s."


def overhead(content: Result) -> str:
    """Mlpack beside the bare script, and the unchanged run."""
    rows = [
        [
            f"{pair['mlpack_s']:.1f} s",
            f"{pair['bare_s']:.1f} s",
            f"{pair['mlpack_s'] / pair['bare_s']:.2f}",
            f"{pair['timing_s']:.1f} s",
            f"{pair['wall_s']:.1f} s",
            f"{pair['quantizations']} and {pair['evaluations']}",
            str(pair["exit_code"]),
        ]
        for pair in content["pairs"]
    ]
    head = [
        "mlpack without timing runs", "bare script", "ratio", "timing runs", "mlpack in all",
        "quantizations and evaluations", "exit code",
    ]  # fmt: skip
    again = content["unchanged_run"]
    said = "says `unchanged`" if again["unchanged"] else "does not say `unchanged`"
    return (
        f"`{content['command']}`: {content['ratio']:.2f} × the bare script (aim: at most {content['ratio_limit']}).\n\n"
        f"{table(head, rows)}\n\n"
        f"The same command again {said} and takes {again['seconds']:.1f} s (aim: under {again['limit_s']:.0f} s)."
    )


def speed(content: Result) -> str:
    """A row per model, request and batch size; a row with the reason where nothing was published."""
    rows = []
    for run in content["runs"]:
        who = [run["model"], "auto" if run["asked"] == "auto" else f"`--{run['asked']}`"]
        if "accuracy" not in run:
            rows.append([*who, f"exit {run['exit_code']}", "–", "–", "–", "–", f"refused: {_cell(run['error'])}"])
            continue
        told = [*who, run["accuracy"]["verdict"], _runs_as(run)]
        rows += [[*told, str(timed["batch"]), *_latency(timed), _drop(run)] for timed in run["latency"]]
    head = ["model", "asked", "verdict", "runs as", "batch", "against PyTorch eager [95%]", "P50", "drop [90%], limit"]
    return table(head, rows)


def recipes(content: Result) -> str:
    """A row per recipe: its gate and what came of it."""
    rows = []
    for run in content["runs"]:
        gate = ", ".join(each for each in (run["promise"], f"at most {run['limit']}") if each)
        name = f"[{run['recipe']}]({run['recipe']}.yaml)"
        if "accuracy" not in run:
            rows.append([name, gate, f"exit {run['exit_code']}: {_cell(run['error'])}", *["–"] * 5])
            continue
        timings = [timed for timed in run["latency"] if timed["speedup"] is not None]
        pace = "; ".join(f"{_latency(timed)[0]} at batch {timed['batch']}" for timed in timings)
        reason = run["latency"][0]["reason"] or ""
        before, after = run["baseline"]["size_bytes"], run["size_bytes"]
        size = f"{before / 1e6:.3g} → {after / 1e6:.3g} MB"
        verdict = f"{run['accuracy']['verdict']}: {_drop(run)}"
        peak = f", {run['peak_bytes'] / 1e6:,.0f} MB" if "peak_bytes" in run else ""
        taken = f"{run['wall_s']:.0f} s{peak}"
        rows.append([name, gate, verdict, _runs_as(run), pace or reason, size, _pruned(run), taken])
    head = ["recipe", "gate", "verdict, drop [90%]", "runs as", "against PyTorch eager [95%]", "size", "pruned",
            "in, peak memory"]  # fmt: skip
    return table(head, rows)


def _pruned(run: Result) -> str:
    gone = run.get("pruned")
    if gone is None:
        return ""
    millions = " → ".join(f"{gone[name] / 1e6:.3g}" for name in ("parameters_before", "parameters_after"))
    return f"{gone['flops_gone']:.1%} of the FLOPs, {millions} million parameters"


def error_rates(content: Result) -> str:
    """False passes, power, coverage; a row per case."""
    by_limit: dict[float, dict[int, Result]] = {}
    for row in content["proportions"]:
        if "false_pass" in row:
            by_limit.setdefault(row["limit"], {})[row["samples"]] = row
    samples = content["grid"]["samples"]
    worst = table(
        ["limit", *(f"{count:,} samples" for count in samples)],
        [
            [f"{limit * 100:g}pt", *(f"{by_count[count]['false_pass']:.1%}" for count in samples)]
            for limit, by_count in by_limit.items()
        ],
    )
    powers = table(
        ["samples", "a harmless model passes", "twice the limit fails or is inconclusive", "at 5% / 10% discordance"],
        [
            [
                f"{row['samples']:,}",
                f"{row['harmless_passes']:.1%}",
                f"{row['twice_caught']:.2%}",
                " / ".join(f"{each:.2%}" for each in row["twice_caught_if_some_help"].values()),
            ]
            for row in content["proportions"]
            if "harmless_passes" in row
        ],
    )
    covered = table(
        ["samples", "discordance", "true drop", "covered"],
        [
            [f"{row['samples']:,}", f"{row['discordance']:.0%}", f"{row['drop'] * 100:g}pt", f"{row['covered']:.1%}"]
            for row in content["coverage"]
        ],
    )
    chosen = "; ".join(f"{row['false_pass']:.1%} at {row['samples']:,} samples" for row in content["best_of_ten"])
    boot = table(
        ["metric by bootstrap", "samples", "repeats", "false pass", "covered"],
        [
            [
                row["case"],
                f"{row['samples']:,}",
                f"{row['repeats']:,}",
                f"{row['false_pass']:.1%}",
                f"{row['covered']:.1%}",
            ]
            for row in content["bootstrap"]
        ],
    )
    others = table(
        ["at its limit", "passes"], [[row["case"], f"{row['false_pass']:.1%}"] for row in content["simulated"]]
    )
    discordance = ", ".join(f"{each:.1%}" for each in content["grid"]["discordance"])
    return (
        "**Right/wrong metrics: a model exactly at the limit passes** (aim: at most 5%; exact, the worst over "
        f"discordances of {discordance} and of the limit itself):\n\n{worst}\n\n"
        f"Where the best of ten such models is chosen on other rows and then confirmed: {chosen} "
        f"({content['best_of_ten'][0]['repeats']:,} repeats).\n\n"
        f"**Power**, limit 1pt, 2% discordance (aim: 75% at 2,000 samples, and 99%):\n\n{powers}\n\n"
        f"**Coverage of the 90% interval** (exact):\n\n{covered}\n\n"
        f"**Other metrics** at their limit:\n\n{boot}\n\n"
        "**Clusters, limits that are a share of errors, groups, and the gate's answers on single calls** "
        f"({content['simulated'][0]['repeats']:,} repeats each, of calls {content['simulated'][-1]['repeats']:,}):"
        f"\n\n{others}"
    )


def repeatability(content: Result) -> str:
    """How far repeated speed-ups lie apart, and the medians that they are ratios of."""
    rows = [
        [
            each["model"],
            str(row["batch"]),
            f"{row['median']:.2f} ×",
            f"{min(row['speedups']):.2f} to {max(row['speedups']):.2f}",
            f"{row['spread']:.1%}",
            f"{stdev(row['speedups']) / row['median']:.1%}",
            f"{content['spread_limits'][str(row['batch'])]:.0%}",
            " / ".join(f"{value:.1%}" for value in row.get("p50_spread", {}).values()) or "–",
            f"{each['steady']} of {each['runs']}",
        ]
        for each in content["speeds"]
        for row in each["batches"]
    ]
    head = [
        "model", "batch", "median speed-up", "range", "largest distance from the median", "standard deviation", "aim",
        "that of P50, original / optimized", "steady runs",
    ]  # fmt: skip
    return table(head, rows)


def identical(content: Result) -> str:
    """How often a model was called different from itself."""
    ratios = content["speedups"]
    return (
        f"Of {content['pairs']} comparisons of a model with itself {content['called_different']:.0%} called the two "
        f"different (an interval of 95% may do so in 5%); speed-ups {min(ratios):.3f} to {max(ratios):.3f} ×."
    )


def streaming(content: Result) -> str:
    """Peak memory by number of images, for both commands."""
    head = ["images", "optimize", "peak of its largest process", "predict", "peak of its largest process"]
    rows = []
    for row in content["rows"]:
        cells = [cell for name in ("optimize", "predict") for cell in _used(row[name])]
        rows.append([f"{row['images']:,}", *cells])
    first, last = content["rows"][0], content["rows"][-1]
    grown = {name: last[name]["peak_mb"] / first[name]["peak_mb"] for name in ("optimize", "predict")}
    told = ", ".join(f"`{name}` {ratio:.2f}x" for name, ratio in grown.items())
    side = content["side"]
    return (
        f"{table(head, rows)}\n\nJPEG files of {side} x {side} pixels. Memory from the fewest to the most images: "
        f"{told} (allowed: {content['most_growth']:g}x)."
    )


def _used(told: Result) -> list[str]:
    return [f"{told['seconds']:.0f} s", f"{told['peak_mb']:.0f} MB"]


def calibration(content: Result) -> str:
    """A row for each model, method and number of samples: time and memory beside those of others."""
    head = ["model", "method", "samples", "inferences alone", "mlpack", "onnxruntime", "time", "memory", "ranges"]
    rows = []
    for row in content["rows"]:
        if "mlpack" not in row:
            continue
        ours, theirs = row["mlpack"], row.get("onnxruntime") or {}
        measured = theirs.get("seconds") is not None
        far = row.get("beyond_a_bin")
        same = "–" if far is None else f"{ours['tensors'] - len(far)} of {ours['tensors']}"
        rows.append([
            row["model"], row["method"], f"{row['samples']:,}", f"{row['plain_s']:.2f} s", _taken(ours),
            _taken(theirs) if measured else _cell(theirs.get("error")),
            f"{ours['seconds'] / theirs['seconds']:.2f} ×" if measured else "–",
            # Beside what a process and a session take anyway, less says nothing.
            f"{ours['peak_mb'] / theirs['peak_mb']:.2f} ×" if (theirs.get("peak_mb") or 0) > _TELLING_MB else "–",
            same,
        ])  # fmt: skip
    peers = []
    for row in content["rows"]:
        if told := row.get("peer"):
            taken = _cell(told["error"]) if "error" in told else _taken(told)
            # Of its time over that of the inferences alone, which is what calibration cannot do without.
            over = "–" if "error" in told else f"{told['seconds'] / row['plain_s']:.1f} ×"
            plain = f"{row['plain_s']:.2f} s"
            peers.append([row["model"], row["method"], f"{row['samples']:,}", plain, taken, over])
    shown = (
        f"{table(head, rows)}\n\nMemory is the peak over what the process held before. *Ranges*: tensors whose range "
        f"is onnxruntime's within one of its 2,048 bins. Percentile {content['percentile']}, batches of "
        f"{content['batch']}."
    )
    if peers:
        head = ["model", "by", "samples", "inferences alone", "took", "over the inferences"]
        shown += f"\n\nOthers, their whole quantization:\n\n{table(head, peers)}"
    return shown


def _taken(told: Result) -> str:
    return f"{told['seconds']:.2f} s, {told['peak_mb']:.0f} MB"


def int8(content: Result) -> str:
    """A row for each model and tool: what is left of the accuracy, how fast, and what it cost to make."""
    rows = []
    for each in content["models"]:
        for tool, told in {"mlpack": each["mlpack"], **each["peers"]}.items():
            accuracy, speed = told.get("accuracy") or {}, told.get("speed") or {}
            reason = told.get("error") or accuracy.get("error")
            drop = f"failed: {_cell(reason)}"
            if "drop" in accuracy:
                low, high = accuracy["drop_ci90"]
                drop = f"{accuracy['drop']:.4f} [{low:.4f}, {high:.4f}]"
            rows.append([
                each["model"], tool, f"{accuracy['baseline']:.4f}" if "drop" in accuracy else "–", drop,
                accuracy.get("verdict", "–"), f"{told['cosine']:.4f}" if "cosine" in told else "–",
                *(_times(speed.get(batch)) for batch in ("1", "8")), _made_in(told),
                f"{told['peak_mb']:,} MB" if "peak_mb" in told else "–",
            ])  # fmt: skip
    head = [
        "model", "int8 by", "original", "drop [90%]", f"verdict at {content['limit']}", "cosine", "batch 1",
        "batch 8", "made in", "memory",
    ]  # fmt: skip
    return (
        f"{table(head, rows)}\n\nSpeeds are over PyTorch eager, all of a model in turns [95%]. Seconds of mlpack are "
        "those of the whole command from nothing: loading, exporting, every candidate, the choice, the final timing. "
        "Beside them those of a command that `--time-limit 1s` ends at its first candidate inside the limit, and of "
        "that the part from the simplified graph to this candidate's score on the confirming rows. "
        "Those of the others are of quantizing the graph that mlpack exported; accuracy control's and Olive's include "
        "their own searches. Memory is the most over what was there before, mlpack's that of a whole process. "
        "Cosine: between the answers and those of the float graph, the mean over confirming rows."
    )


def _made_in(told: Result) -> str:
    if "seconds" not in told:
        return "–"
    first = f", the first {told['first_s']:.0f} s" if told.get("first_s") else ""
    confirmed = f", from the graph {told['confirmed_s']:.1f} s" if told.get("confirmed_s") else ""
    return f"{told['seconds']:.1f} s{first}{confirmed}"


def _times(told: Result | None) -> str:
    if told is None or told["times"] is None:
        return "–"
    if told["ci95"] is None:
        return f"{told['times']:.2f} ×"
    low, high = told["ci95"]
    return f"{told['times']:.2f} × [{low:.2f}, {_bounded(high)}]"


def _bounded(high: float) -> str:
    return f"{high:.2f}" if high <= _BEYOND else f">{_BEYOND:,}"


def backends(content: Result) -> str:
    """A row for each model and contender: its time, its error, and how many times as fast mlpack's choice is."""
    rows = []
    for each in content["models"]:
        for name, told in sorted(each["contenders"].items(), key=lambda item: item[0] != "mlpack"):
            speeds = [told["speed"][batch] for batch in ("1", "8")]
            rows.append([
                each["model"] if name == "mlpack" else "",
                f"**mlpack**: {each['runs_as']}" if name == "mlpack" else name,
                *(f"{speed['p50_ms']:.3g}" for speed in speeds), f"{told['error']:.1e}",
                *(_times(speed["mlpack_times"]) for speed in speeds),
            ])  # fmt: skip
    head = ["model", "run by", "ms, batch 1", "ms, batch 8", "error", "mlpack is, batch 1", "mlpack is, batch 8"]
    absent = [f"- {each['model']}: {_cell(reason)}" for each in content["models"] for reason in each["left_out"]]
    return (
        f"{table(head, rows)}\n\nMedians of one run in turns, mlpack's choice times as fast [95%]. Error: relative L2 "
        "distance of the first output from PyTorch eager's. mlpack goes by a limit on accuracy (1%, none for "
        "random weights), not by this distance. Left out:\n\n" + "\n".join(dict.fromkeys(absent))
    )


def serving(content: Result) -> str:
    """What was seen of each runtime's package on its real server."""
    rows = [
        [
            row["runtime"], f"{row['server']}, {row['start_s']:.1f} s",
            *("–" if row["golden"].get(protocol) is None else "same" if row["golden"][protocol] else "**differ**"
              for protocol in ("http", "grpc")),
            "–" if row["p50_ms"] is None else f"{row['p50_ms']:.2f} ms",
            "–" if row["batching"] is None else f"{row['batching']:g} a run", f"{row['metrics']} series",
            _in_container(row["container"]),
            f"{row['sigterm']['answered']} answered, {row['sigterm']['lost']} lost",
            "refused" if row["tampered"] else "**served**",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    head = ["runtime", "ready after", "golden, HTTP", "gRPC", "P50", f"{content['together']} at once", "metrics",
            "its own image", "SIGTERM in flight", "altered model"]  # fmt: skip
    notes = [f"{row['runtime']}: {note}." for row in content["rows"] for note in row["notes"]]
    notes += [f"{row['runtime']}, image: {row['container']['why']}." for row in content["rows"]
              if "why" in row["container"]]  # fmt: skip
    return f"{table(head, rows)}\n\nOf {content['model']}. " + " ".join(dict.fromkeys(notes))


def serving_load(content: Result) -> str:
    """The FastAPI package under load, beside others, and bench beside perf_analyzer."""
    return serving_page.page(content, table)


def _in_container(found: Result) -> str:
    return f"{found['verdict']}, {found['start_s']:.1f} s" if "verdict" in found else "–"


def call_overhead(content: Result) -> str:
    """What a call takes by backend and batch size, and what it takes more than the library's own."""
    rows = [
        [
            row["backend"], str(row["batch"]), f"{row['mlpack_us']:.1f} µs", f"{row['library_us']:.1f} µs",
            f"{row['mlpack_us'] - row['library_us']:+.1f} µs",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    head = ["backend", "batch", "mlpack's session", "the library's", "more"]
    return f"{table(head, rows)}\n\nOn {content['model']}, at most {content['most_us']:.0f} µs more are asked for."


def prediction(content: Result) -> str:
    """The errors of models left out of the learning, model by model and in the median; and what was learnt."""
    errors = [
        [
            each["backend"], each["label"], each["unit"], str(each["models"]), f"{each['median_error']:.0%}",
            f"{each['most_error']:.0%}", f"{each['median_error_of_all']:.0%}",
        ]
        for each in content["lessons"]
    ]  # fmt: skip
    summary = table(["backend", "numerics", "unit", "learnt from", "median error", "largest", "of all"], errors)
    backends = dict.fromkeys(each["backend"] for each in content["lessons"])
    rows = "\n\n".join(_predictions_on(backend, content) for backend in backends)
    absent = "".join(f"\n- {_cell(reason)}" for reason in content["left_out"])
    return (
        f"{summary}\n\nErrors are relative, of models left out of the learning one by one (aim: a median of "
        f"{content['aim']:.0%}). That of all counts the networks of models/shapes.py too (in italics), which are there "
        f"to be learnt from.\n\n{rows}\n\nMs measured → predicted without it (error). –: there is no such "
        "graph, or the others have none of its kinds of operator." + (f"\n\nLeft out:\n{absent}" if absent else "")
    )


def _predictions_on(backend: str, content: Result) -> str:
    """A row per model and batch size, a column per numerics and number of threads."""
    told = {each["label"]: each for each in content["lessons"] if each["backend"] == backend}
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for label, each in told.items():
        for row in each["left_out"]:
            cells.setdefault((row["model"], row["batch"]), {})[label] = _predicted(row)
    rows = [
        [model if model in content["judged"] else f"*{model}*", str(batch), *(found.get(label, "–") for label in told)]
        for (model, batch), found in cells.items()
    ]
    return table([f"on {backend}", "batch", *told], rows)


def _predicted(row: Result) -> str:
    if row["error"] is None:
        return f"{row['p50_ms']:.3g} → –"
    return f"{row['p50_ms']:.3g} → {row['predicted_ms']:.3g} ({row['error']:.0%})"


def quantization_options(content: Result) -> str:
    """A row per model, operators and method; a column per option, in bold where it is better than none."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    plain: dict[tuple[str, ...], Result] = {}
    for row in content["rows"]:
        where_ = (row["model"], row["operators"], row["method"])
        if row["option"] == "none":
            plain[where_] = row
        told = f"{row['sqnr_db']:.1f} dB, {row['agreement']:.1%}"
        better = row["sqnr_db"] > plain[where_]["sqnr_db"] + _TELLING_DB
        bold = f"**{told}**" if better else told
        cells.setdefault(where_, {})[row["option"]] = bold if row["changed"] or row["option"] == "none" else "–"
    options = list(dict.fromkeys(row["option"] for row in content["rows"]))
    rows = [[*where_, *(found.get(option, "") for option in options)] for where_, found in cells.items()]
    counts = {row["model"]: row["rows"] for row in plain.values()}
    judged = ", ".join(f"{name} {count}" for name, count in counts.items())
    head = ["model", "operators", "ranges", *options]
    samples = content["rows"][0]["samples"]
    return (
        f"{table(head, rows)}\n\nSQNR of the outputs, and how many answers are those of the float graph, on rows that "
        f"nothing was calibrated on ({judged}). At most {samples} calibration samples; `smooth` is 0.5, `rounding` "
        f"adaptive. –: the option finds nothing to change. Bold: at least {_TELLING_DB} dB better than without."
    )


def ort_options(content: Result) -> str:
    """A row per graph and batch size; a column per option, in bold where its interval leaves no doubt of a gain."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in content["rows"]:
        low, high = row["ci95"]
        told = f"{row['times']:.2f} [{low:.2f}, {high:.2f}]"
        found = cells.setdefault((row["model"], row["numerics"], str(row["batch"])), {})
        found[row["option"]] = f"**{told}**" if low > 1 + _TELLING_GAIN else told
        if row["option"] == "as set":
            found["as set"] = f"{row['cpu_ms']:.3g} ms"
    options = list(dict.fromkeys(row["option"] for row in content["rows"]))
    rows = [[*where_, *(found.get(option, "") for option in options)] for where_, found in cells.items()]
    rounds = sorted({row["rounds"] for row in content["rows"]})
    head = ["model", "numerics", "batch", *options]
    return (
        f"{table(head, rows)}\n\nCPU time of one thread with the options that mlpack sets by itself, and how many "
        f"times as fast it is with others [95%], over {' or '.join(map(str, rounds))} sessions of each. Bold: the "
        f"interval lies over {1 + _TELLING_GAIN:.2f}. *Again* is chance alone."
    )


def large_weights(content: Result) -> str:
    """A row per stage of each run: seconds, peak memory, and what it wrote."""
    parts = []
    for run in content["runs"]:
        rows = [
            [
                f"{stage['stage']}, {stage['what']}" if stage["what"] else stage["stage"],
                f"{stage['seconds']:.1f} s",
                f"{stage['peak_rss_bytes'] / 1e9:.1f} GB",
                f"{stage['size_bytes'] / 1e9:.2f} GB",
            ]
            for stage in run["stages"]
        ]
        came = f"refused: {_cell(run['error'])}" if "accuracy" not in run else _published(run)
        head = ["stage", "time", "peak memory", "written"]
        parts.append(f"`--{run['asked']}`, {run['wall_s']:.0f} s in all: {came}\n\n{table(head, rows)}")
    size = content["weights_bytes"] / 1e9
    said = "Peaks are those of a stage's own process; profile_latency runs its contenders in others."
    return f"A model with {size:.2f} GB of float32 weights. {said}\n\n" + "\n\n".join(parts)


def _published(run: Result) -> str:
    before, after = run["baseline"]["size_bytes"] / 1e9, run["size_bytes"] / 1e9
    pace = _latency(run["latency"][0])[0]
    return f"{run['accuracy']['verdict']}, {_runs_as(run)}, {before:.2f} → {after:.2f} GB, {pace} at batch 1"


def _runs_as(run: Result) -> str:
    how = f" {run['method']}" if run["method"] and run["method"] != "cast" else ""
    share = f" ({run['numerics_share']:.0%})" if run["numerics"] != "fp32" else ""
    return f"{run['numerics']}{how}{share} on {run['backend']}"


def _latency(timed: Result) -> list[str]:
    if timed["speedup"] is None:
        return ["not measured", f"{timed['reason']}"]
    low, high = timed["speedup_ci95"]
    before, after = timed["baseline"]["p50"], timed["optimized"]["p50"]
    return [f"{timed['speedup']:.2f} × [{low:.2f}, {high:.2f}]", f"{before:.3g} → {after:.3g} ms"]


def _drop(run: Result) -> str:
    told = run["accuracy"]
    if told["drop"] is None or told["drop_ci90"] is None:
        return "not judged"
    low, high = (100 * end for end in told["drop_ci90"])
    allowed = f", {told['limit_text']} = {100 * told['limit']:.2f}pt" if told["limit"] is not None else ""
    return f"{100 * told['drop']:.2f}pt [{low:.2f}, {high:.2f}]{allowed} on {told['samples']:,} samples"


def _cell(text: str | None) -> str:
    """The first of an error's reasons; the result file has all of them."""
    first, more, _ = (text or "").partition("; ")
    return first.replace("|", "\\|").replace("\n", " ") + (" …" if more else "")


_OF_README = (
    ("startup", startup),
    ("overhead", overhead),
    ("speed", speed),
    ("streaming", streaming),
    ("large_weights", large_weights),
    ("compress_large", compress_page.large),
    ("calibration", calibration),
    ("quantization_options", quantization_options),
    ("compress_int4", compress_page.int4),
    ("compress_language", compress_page.language),
    ("compress_qat", compress_page.qat),
    ("ort_options", ort_options),
    ("int8", int8),
    ("call_overhead", call_overhead),
    ("backends", backends),
    ("prediction", prediction),
    ("compress_prune", compress_page.prune),
    ("compress_together", compress_page.together),
)


if __name__ == "__main__":
    render_all()
