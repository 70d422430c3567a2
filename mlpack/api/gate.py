"""`mlpack.gate()`: may this artifact replace that one? Every answer with its interval; nothing is guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.baselines import OPTIMIZED, ORIGINAL, Against, Scored, scored, write_baseline
from mlpack.api.baselines import against as baseline_from
from mlpack.api.flags import AGREEMENT_LIMIT, DEFAULT_LIMIT
from mlpack.api.gate_speed import Speed, speed_checks
from mlpack.api.lookup import artifact
from mlpack.core.gate import Change, Check, Gated
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.engine.context import Context
from mlpack.errors import DataError, UsageError

if TYPE_CHECKING:
    from mlpack.core.artifact import Stored
    from mlpack.measure.limits import Limit


@progress_in_notebooks
def gate(
    reference: str | None = None,
    *,
    against: str | Path,
    data: str | Path | None = None,
    metric: str | None = None,
    max_drop: str | None = None,
    max_group_drop: str | None = None,
    max_p50_regression: str | None = None,
    max_p99: str | None = None,
    max_slow: str | None = None,
    max_size: str | None = None,
    max_memory: str | None = None,
    latency: bool = True,
    threads: int | None = None,
    store: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Gated:
    """Judge an artifact against a baseline: another artifact, or a file that `write_baseline` wrote.

    Accuracy is compared row by row, with the baseline and with the artifact's own original, so that a row of small
    drops cannot add up unseen; with other `data` the original is compared on the rows that the artifact was made with.
    Where the baseline's model is at hand the median is measured again here, both in turns. `max_drop` is as for
    `optimize` (default: the artifact's own limit), `max_group_drop` a limit that every group of the data has to hold,
    `max_p50_regression` a share (default `10%`), `max_p99` a time (`20ms`), `max_slow` a share over a time (`1%:20ms`),
    `max_size` and `max_memory` a size (`25MB`) or growth (`+10%`). `data` scores both on other data.

    Raises:
        UsageError: a reference or an amount that is wrong, or what is asked for cannot be measured here.
        DataError: the two were judged on different rows or by different metrics.
        StageFailed: a library refuses a model.
    """
    known = load_settings(Path.cwd())
    quiet = reporter or Silent()
    asked = Speed.parse(max_p50_regression, max_p99, max_slow, max_size, max_memory, measured=latency)
    stored = artifact(reference, store)
    baseline = baseline_from(str(against), store)
    asked.refuse_without_model(baseline)
    context = _context(known.cache, threads or known.threads, quiet)
    limit = _limit(stored, max_drop)
    new, old, original = _scores(stored, baseline, None if data is None else str(data), metric, context)
    then, now = _beside_original(stored, original, new)
    speed, disturbed = speed_checks(stored, baseline, asked, context)
    checks = [
        _accuracy(f"{old.label}", old, new, limit),
        _against_original(stored, then, now, new, limit),
        *_groups(old, new, max_group_drop),
        *(_groups(then, now, max_group_drop) if _comparable(now, new) else ()),
        *speed,
    ]
    this = stored.artifact
    return Gated(
        name=this.name,
        version=this.version,
        digest=this.digest,
        against=baseline.label,
        checks=tuple(checks),
        changes=_changes(stored, baseline),
        notes=disturbed,
    )


def save_baseline(reference: str | None, path: str | Path, *, store: str | Path | None = None) -> Stored:
    """Write an artifact's baseline file, for `gate --against FILE`; gives the artifact.

    Raises:
        UsageError: nothing is there under the reference.
        DataError: it was never judged on data.
        MachineError: the file cannot be written.
    """
    stored = artifact(reference, store)
    write_baseline(stored, Path(path))
    return stored


def _context(cache: Path, threads: int | None, reporter: Reporter) -> Context:
    from mlpack.core.targets import this_machine
    from mlpack.core.threads import usable_threads

    return Context(
        cache=cache, target=this_machine(), threads=threads or usable_threads(), seed=0, reporter=reporter
    )  # fmt: skip


def _limit(stored: Stored, text: str | None) -> Limit:
    from mlpack.measure.limits import Limit as Parsed

    accuracy = stored.artifact.accuracy
    usual = AGREEMENT_LIMIT if accuracy.metric == "agreement" else DEFAULT_LIMIT
    return Parsed.parse(text or accuracy.limit_text or usual)


def _scores(
    stored: Stored, baseline: Against, data: str | None, metric: str | None, context: Context
) -> tuple[Scored, Scored, Scored | None]:
    """The results of the artifact, of the baseline and of the original, on the same rows."""
    from mlpack.api.rescoring import context_of, prepared_as, refuse_other_rows, score

    original: Scored | None
    if data is None:
        if metric is not None and metric != stored.artifact.accuracy.metric:
            raise UsageError(f"--metric {metric} has to be scored on data", "give it: --data FILE")
        new, old, original = scored(stored, OPTIMIZED), baseline.scored, scored(stored, ORIGINAL)
    else:
        context = context_of(data, stored, context)
        name = metric or stored.artifact.accuracy.metric
        output = stored.artifact.recipe.get("data", {}).get("output")
        new = score(stored, name, output, context)
        old = baseline.scored
        if baseline.stored is not None:
            # The same rows by content, however each of the two prepares them.
            theirs = prepared_as(baseline.stored, data, stored, context)
            old = replace(score(baseline.stored, name, output, theirs), part=new.part)
        own = scored(stored, ORIGINAL)
        same = (own.part, own.metric, own.output, own.code) == (new.part, new.metric, new.output, new.code)
        original = own if same else None
    refuse_other_rows(new, old)
    return new, old, original


def _accuracy(against: str, old: Scored, new: Scored, limit: Limit) -> Check:
    from mlpack.measure import checks
    from mlpack.measure.limits import compare
    from mlpack.measure.metrics import metric

    judged = metric(new.metric, labels=True, output=new.output)
    return checks.accuracy(against, compare(judged, old.kept, new.kept, new.cluster, limit, seed=0))


def _beside_original(stored: Stored, original: Scored | None, new: Scored) -> tuple[Scored, Scored]:
    """The original and the artifact on the same rows: those of `new`, else those that the artifact was made with."""
    source = f"the original ({Path(stored.artifact.source.path).name})"
    if original is not None:
        return replace(original, label=source), new
    return replace(scored(stored, ORIGINAL), label=f"{source} when it was made"), scored(stored, OPTIMIZED)


def _comparable(now: Scored, new: Scored) -> bool:
    """Whether a limit on groups of the one can be held against those of the other."""
    return now.group is not None and (now.metric, now.code) == (new.metric, new.code)


def _against_original(stored: Stored, then: Scored, now: Scored, new: Scored, limit: Limit) -> Check:
    from mlpack.measure.checks import skipped

    if now.metric == new.metric and now.code != new.code:
        why = f"{new.metric} has changed since the original was scored by it"
        return skipped(f"accuracy, against {then.label}", why)
    return _accuracy(then.label, then, now, limit if now.metric == new.metric else _limit(stored, None))


def _groups(old: Scored, new: Scored, text: str | None) -> list[Check]:
    """The check of the group that did worst, where groups have a limit."""
    if text is None:
        return []
    from mlpack.measure import checks
    from mlpack.measure.limits import Limit as Parsed
    from mlpack.measure.metrics import metric
    from mlpack.measure.slices import drops_by_group

    limit = Parsed.parse(text)
    if new.group is None:
        raise DataError("--max-group-drop needs the data to say which group a sample is in",
                        "add an array `group` to the data: a number or a name per sample")  # fmt: skip
    judged = metric(new.metric, labels=True, output=new.output)
    found = drops_by_group(judged, old.kept, new.kept, new.group, new.cluster, limit, seed=0)
    return [checks.worst_group(old.label, found, limit, judged)]


def _changes(stored: Stored, baseline: Against) -> tuple[Change, ...]:
    """What differs in how the two were made; measured values stand in the checks."""
    from mlpack.api.diff import differing, made

    # As a file tells it: what JSON has no word for reads the same on both sides.
    now = {name: json.loads(json.dumps(value)) for name, value in made(stored.artifact).items()}
    then = {name: json.loads(json.dumps(value)) for name, value in baseline.made.items()}
    if not then:
        return ()
    return tuple(Change(part=each.part, what=each.what, before=each.a, after=each.b) for each in differing(then, now))
