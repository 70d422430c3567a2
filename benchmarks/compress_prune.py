"""digits-resnet without 30, 50 and 70% of its FLOPs: by each criterion, trained afterwards or not.

torch-pruning used alone is its documented recipe, one shot of MagnitudePruner's kind with its own magnitude or Taylor
importance and the last layer ignored, at the ratio that leaves as many FLOPs; it is trained and exported by the same
stages. The graphs are float32 in ONNX Runtime, timed in turns with the graph of the model that was handed in.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opening
import record
import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from mlpack.core.model import Model
    from mlpack.core.stage import Stage
    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context
    from mlpack.engine.judge import Judge

SAMPLE = "digits-resnet"
AMOUNTS = (0.3, 0.5, 0.7)
CRITERIA = ("magnitude", "taylor", "latency")
ALONE = ("magnitude", "taylor")
ROWS = 256
STEPS_OF_BISECTION = 12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amounts", nargs="+", type=float, default=list(AMOUNTS))
    parser.add_argument("--quick", action="store_true", help="two short launches, one epoch: tries the script")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compress-prune-") as folder:
        bench = Bench.opened(Path(folder), quick=given.quick)
        rows = []
        for row in every(bench, given.amounts):
            print({name: value for name, value in row.items() if name != "latency"}, flush=True)
            rows.append(row)
            record.write("compress_prune", {"quick": given.quick, "sample": SAMPLE, "rows": rows})
            tables.render_all()
    return 0


@dataclass
class Bench:
    """The original as a module and as a graph, and what stages run in."""

    original: Model
    graph: Model
    context: Context
    judge: Judge
    folder: Path
    quick: bool

    @classmethod
    def opened(cls, folder: Path, *, quick: bool) -> Bench:
        """With the sample's own training rows."""
        rows = f"sample_models/{SAMPLE}/train.npz"
        found = opening.opened(record.sample(SAMPLE), folder, train=rows, prune="50%", backend="onnxruntime")
        made = cls(found.original, found.original, found.context, found.judge(), folder, quick)
        made.graph = made.exported(found.original)[-1].model
        return made

    def run(self, stage: Stage, model: Model, **rivals: Model) -> Done:
        """One stage."""
        from mlpack.engine.run import run

        return run(stage, model, self.context, rivals=rivals)

    def exported(self, model: Model) -> list[Done]:
        """Its float32 graph for ONNX Runtime."""
        from mlpack.stages.compile import Compile
        from mlpack.stages.export import Export
        from mlpack.stages.simplify import Simplify

        done: list[Done] = []
        for stage in (Export(), Simplify(), Compile(backend="onnxruntime")):
            done.append(self.run(stage, done[-1].model if done else model))
        return done

    def trained(self, model: Model) -> Done:
        """Recovered with the original as its teacher."""
        from mlpack.stages.distill import Distill

        return self.run(Distill(epochs=1) if self.quick else Distill(), model)

    def measured(self, model: Model) -> dict[str, Any]:
        """Accuracy on the confirming rows beside the original, and speed beside the original's graph."""
        from mlpack.stages.profile_latency import ProfileLatency

        graph = self.exported(model)[-1].model
        compared = self.judge.compare(self.judge.original("confirming"), self.judge.score(graph, "confirming"))
        short = {"launches": 2, "seconds": 0.05} if self.quick else {}
        timed = self.run(ProfileLatency(components=False, **short), graph, baseline=self.graph)
        speeds = {
            str(row["batch"]): {"speedup": row["speedup_over"], "ci95": row["speedup_over_ci95"]}
            for row in timed.report.tables["latency"]
            if row["contender"] == "baseline"
        }
        return {
            "drop": compared.drop,
            "drop_ci90": list(compared.drop_ci90),
            "size_bytes": graph.size_bytes,
            "size_before_bytes": self.graph.size_bytes,
            "latency": speeds,
        }


def every(bench: Bench, amounts: list[float]) -> Iterator[dict[str, Any]]:
    """A row for each way to prune, by itself and trained afterwards."""
    from mlpack.errors import StageFailed
    from mlpack.stages.prune import Prune

    for amount in amounts:
        for criterion in CRITERIA:
            where = {"by": "mlpack", "criterion": criterion, "amount": amount}
            try:
                done = bench.run(Prune(amount=amount, criterion=criterion), bench.original)
            except StageFailed as error:
                yield {**where, "error": error.message}
                continue
            told = done.report.metrics
            work = {name: told[name] for name in ("flops_gone", "parameters_before", "parameters_after")}
            yield from both(bench, done.model, {**where, **work}, done.seconds, done.peak_rss_bytes)
        for criterion in ALONE:
            yield from alone(bench, amount, criterion)


def both(
    bench: Bench, model: Model, told: dict[str, Any], seconds: float, peak: int | None
) -> Iterator[dict[str, Any]]:
    """As it is pruned, and trained afterwards."""
    yield {**told, "recovery": False, "seconds": seconds, "peak_bytes": peak, **bench.measured(model)}
    trained = bench.trained(model)
    yield {
        **told,
        "recovery": True,
        "seconds": round(seconds + trained.seconds, 1),
        "peak_bytes": max(peak or 0, trained.peak_rss_bytes),
        **bench.measured(trained.model),
    }


def alone(bench: Bench, amount: float, criterion: str) -> Iterator[dict[str, Any]]:
    """torch-pruning by itself; what it leaves is kept as a model so that the same stages train and export it."""
    from mlpack.backends.torch_changed import save_changed
    from mlpack.backends.torch_loader import load_inner
    from mlpack.core.loader import Loader
    from mlpack.pruning.flops import work_of

    started = time.perf_counter()
    images, labels = some_rows(bench)
    whole = load_inner(bench.original.path, Loader.read(bench.original.path))

    def call(module: torch.nn.Module) -> tuple[torch.Tensor, ...]:
        return (module(images[:1]),)

    before = work_of(whole, call)
    low, high, made, gone = 0.0, 0.98, None, 0.0
    for _ in range(STEPS_OF_BISECTION):
        ratio = (low + high) / 2
        module = pruned(copy.deepcopy(whole), ratio, criterion, images, labels)
        share = 1 - work_of(module, call).all_flops / before.all_flops
        if share >= amount:
            high, made, gone = ratio, module, share
        else:
            low = ratio
    where = {"by": "torch-pruning alone", "criterion": criterion, "amount": amount}
    if made is None:
        yield {**where, "error": "does not get there"}
        return
    folder = bench.folder / f"alone-{criterion}-{amount:g}"
    folder.mkdir()
    model = save_changed(bench.original, made, folder)
    work = {
        "flops_gone": round(gone, 4),
        "parameters_before": before.all_parameters,
        "parameters_after": work_of(made, call).all_parameters,
    }
    yield from both(bench, model, {**where, **work}, round(time.perf_counter() - started, 1), None)


def some_rows(bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    """Training rows for the gradients that its Taylor importance wants."""
    import torch

    from mlpack.datasets.ref import open_part

    assert bench.context.data is not None
    batch = next(iter(open_part(bench.context.data, "train", bench.original.inputs).batches(ROWS)))
    assert batch.labels is not None
    (images,) = batch.inputs.values()
    return torch.from_numpy(images.copy()), torch.from_numpy(batch.labels.astype("int64"))


def pruned(
    module: torch.nn.Module, ratio: float, criterion: str, images: torch.Tensor, labels: torch.Tensor
) -> torch.nn.Module:
    """Its README's recipe: importance, BasePruner with global pruning, the classifier ignored, multiples of 8."""
    import torch
    import torch_pruning as tp

    importance: Any = tp.importance.GroupMagnitudeImportance(p=2)
    if criterion == "taylor":
        importance = tp.importance.GroupTaylorImportance()
    last = [each for each in module.modules() if isinstance(each, torch.nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        module, images[:1], importance=importance, pruning_ratio=ratio, global_pruning=True, ignored_layers=[last],
        round_to=8,
    )  # fmt: skip
    if criterion == "taylor":
        torch.autograd.backward(torch.nn.functional.cross_entropy(module(images), labels))
    pruner.step()
    module.zero_grad()
    return module


if __name__ == "__main__":
    raise SystemExit(main())
