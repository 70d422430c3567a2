"""Whatever fuses, folds or quantizes: nodes are still named by the user's modules, and time is split by them."""

import onnx
import pytest
from doors import rows_for
from hypothesis import given
from hypothesis import strategies as st

from mlpack.stages.components import ELSEWHERE, by_module
from mlpack.stages.module_names import module_of
from mlpack.stages.quantize import Quantize
from mlpack.stages.simplify import Simplify


def modules(path):
    graph = onnx.load(path, load_external_data=False).graph
    return {node.name: (node.op_type, module_of(node.name)) for node in graph.node}


def test_module_of():
    assert module_of("encoder.layer.0/node_linear") == "encoder.layer.0"
    assert module_of("Gemm_1") == ""


@pytest.mark.parametrize(("method", "operators"), [("dynamic", "weighted"), ("static", "all")])
def test_names_survive_simplifying_and_quantizing(bench, kept, method, operators):
    exported = kept.exported("mlp")
    outermost = {name for name, (_, module) in modules(exported.entry_path).items() if not module}
    wanted = {module for kind, module in modules(exported.entry_path).values() if kind in {"Gemm", "MatMul"}}
    assert wanted
    assert "" not in wanted
    simple = Simplify().run(exported, bench.job(parts={"calibration": bench.data(**rows_for("mlp", 8))})).model
    job = bench.job(parts={"calibration": bench.data(**rows_for("mlp", 40))})
    quantized = Quantize(numerics="int8", method=method, operators=operators).run(simple, job).model
    for model in (simple, quantized):
        found = modules(model.entry_path)
        products = {module for kind, module in found.values() if kind in {"Gemm", "MatMul", "MatMulInteger"}}
        assert products == wanted
        assert {name for name, (_, module) in found.items() if not module} <= outermost
        assert len(found) == len(onnx.load(model.entry_path).graph.node), "names are unique"


def test_paths_are_cut_to_a_dozen_rows_in_the_order_of_the_layers():
    spent = {f"encoder.layer.{index}.{part}": 1.0 for index in range(11) for part in ("attention", "output")}
    rows = by_module({"optimized": spent, "baseline": {**spent, "": 3.0}})
    assert [row["module"] for row in rows] == [*(f"encoder.layer.{index}" for index in range(11)), ELSEWHERE]
    assert rows[0] == {"module": "encoder.layer.0", "optimized": 2.0, "baseline": 2.0}
    assert rows[-1] == {"module": ELSEWHERE, "optimized": 0.0, "baseline": 3.0}


def test_a_contender_that_knows_no_modules_is_none_and_not_zero():
    rows = by_module({"optimized": {"head": 1.0, "": 0.5}, "baseline": {"": 2.0}})
    assert rows == [
        {"module": "head", "optimized": 1.0, "baseline": None},
        {"module": ELSEWHERE, "optimized": 0.5, "baseline": None},
    ]


def test_where_no_module_is_known_there_are_no_rows():
    assert by_module({"optimized": {"": 2.0}}) == []


PATHS = st.lists(st.sampled_from(["a", "b", "0", "1", "10"]), min_size=0, max_size=4).map(".".join)


@given(st.dictionaries(PATHS, st.floats(0.1, 10), max_size=20), st.dictionaries(PATHS, st.floats(0.1, 10), max_size=20))
def test_nothing_is_lost_but_crumbs(one, two):
    rows = by_module({"one": one, "two": two})
    if rows:
        for name, spent in (("one", one), ("two", two)):
            if any(spent):
                assert sum(row[name] for row in rows) == pytest.approx(sum(spent.values()), rel=0.03)
            else:
                assert {row[name] for row in rows} == {None}
        assert len(rows) <= 13
    else:
        assert not any((*one, *two))
