"""Run one stage: take it from the cache, or run it in a child and keep it in one rename."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from filelock import FileLock

from mlpack.core.filesystem import (
    check_room,
    make_folder,
    refused_by_machine,
    remove,
    sweep,
    sync,
    temporary_sibling,
    write_atomic,
)
from mlpack.core.model import Model
from mlpack.core.report import Report
from mlpack.core.settings import UNFINISHED
from mlpack.engine import process
from mlpack.engine.cache import Done, find, ingredients, key_of, record
from mlpack.engine.job import JobSpec, with_path
from mlpack.errors import MlpackError

if TYPE_CHECKING:
    from mlpack.core.stage import Stage
    from mlpack.engine.context import Context

# What a stage may write: its model several times over while libraries pass it on through files, and small change.
_ROOM_BYTES = 16_000_000
_ROOM_FOR_COPIES = 4


def run(
    stage: Stage,
    model: Model | None,
    context: Context,
    rivals: dict[str, Model] | None = None,
    label: str = "",
) -> Done:
    """One finished stage: from the cache where all that went into it is the same, else run now.

    Two processes that want the same stage wait for one another; a killed one leaves nothing half-made.

    Raises:
        MlpackError: the stage's own, its message led by the stage's name.
    """
    name = stage.name
    content = ingredients(name, stage, model, context, rivals or {})
    key = key_of(content)
    folder = context.cache / "stages" / key[:2] / key
    with ExitStack() as held:
        make_folder(folder.parent)
        with refused_by_machine(folder):
            held.enter_context(FileLock(folder.with_suffix(".lock")))
        kept = None if stage.timing or context.fresh else find(folder)
        if kept is not None and not stage.served_by(kept.report):
            kept = None
        if kept is not None:
            # What has no say in the key has one in what follows: how a milder form is trained.
            kept = kept.model_copy(update={"options": stage.model_dump(mode="json")})
        done = kept or _run(name, stage, model, context, rivals or {}, content, key)
    spent = "kept from an earlier run" if done.reused else f"{done.seconds:.1f} s"
    context.reporter.stage_done(f"  {label or name}: {spent}")
    return done


def _run(
    name: str,
    stage: Stage,
    model: Model | None,
    context: Context,
    rivals: dict[str, Model],
    content: dict[str, object],
    key: str,
) -> Done:
    folder = context.cache / "stages" / key[:2] / key
    unfinished = context.cache / UNFINISHED / key
    if context.fresh:
        remove(unfinished)
    sweep(folder.parent)
    room = _ROOM_BYTES + _ROOM_FOR_COPIES * (model.size_bytes if model else 0)
    check_room(folder.parent, room)
    work = temporary_sibling(folder)
    started = time.monotonic()
    try:
        with refused_by_machine(work):
            (work / "out").mkdir()
        spec = JobSpec(
            out=work / "out",
            unfinished=unfinished,
            target=context.target,
            threads=context.threads,
            seed=context.seed,
            data=context.data,
            baseline=with_path(context.baseline) if context.baseline else None,
            rivals={label: with_path(rival) for label, rival in rivals.items()},
        )
        arguments = {
            "stage": name,
            "options": stage.model_dump(mode="json"),
            "model": with_path(model) if model else None,
            "spec": spec.model_dump(mode="json"),
        }
        call = "mlpack.engine.job:run_stage"
        finished = process.call(call, arguments, context.reporter.say, place=work, imports=stage.imports(model))
        made = Model.model_validate(finished.value["model"])
        done = Done(
            stage=name,
            options=stage.model_dump(mode="json"),
            key=key,
            ingredients=content,
            model=made.model_copy(update={"path": folder / "out"}) if made.path == work / "out" else made,
            report=Report.model_validate(finished.value["report"]),
            folder=folder,
            seconds=round(time.monotonic() - started, 3),
            peak_rss_bytes=finished.peak_rss_bytes,
            reused=False,
        )
        write_atomic(work / "stage.json", record(done, folder))
        with refused_by_machine(folder):
            remove(folder)
            work.rename(folder)
            sync(folder.parent)
            remove(unfinished)
    except (MlpackError, process.ChildBug) as error:
        remove(work)
        check_room(folder.parent, room)
        if not isinstance(error, MlpackError):
            raise
        raise type(error)(f"{name}: {error.message}", error.hint) from error
    except BaseException:
        remove(work)
        raise
    return done
