"""Metrics that users write, as files: scores, rows, one float, mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mlpack.errors import DataError, UsageError
from mlpack.measure.limits import Limit, compare
from mlpack.measure.metrics import join, metric
from mlpack.measure.user_metric import user_code_digest

RNG = np.random.default_rng(0)
LABELS = np.sort(RNG.integers(0, 2, 200))
LOGITS = (LABELS[:, None] * [[-1.0, 1.0]] + RNG.normal(0, 1.2, (200, 2))).astype(np.float32)


@pytest.fixture
def written(tmp_path):
    def write(text, name="score"):
        path = tmp_path / "mine.py"
        path.write_text("import numpy as np\n" + text)
        return f"{path}:{name}"

    return write


def kept(used, logits=LOGITS, size=32):
    return join([used.keep({"y": logits[i : i + size]}, LABELS[i : i + size]) for i in range(0, 200, size)])


def test_right_or_wrong_becomes_a_proportion(written):
    used = metric(written("def score(outputs, labels):\n    return outputs['y'].argmax(1) == labels\n"),
                  labels=True, output=None)  # fmt: skip
    rows = kept(used)
    settled = used.settled(rows, rows)
    assert (settled.kind, settled.percent) == ("proportion", True)
    assert used.reduce(rows) == np.mean(LOGITS.argmax(1) == LABELS)
    got = compare(used, rows, kept(used, LOGITS * 2), None, Limit.parse("0.8pt"), 0)
    assert got.limit == 0.008
    assert got.errors_baseline == (LOGITS.argmax(1) != LABELS).sum()


def test_scores_become_a_mean_and_lower_may_be_better(written):
    used = metric(written("def score(outputs, labels):\n    return (outputs['y'][:, 1] - labels) ** 2\n"
                          "score.higher_is_better = False\n"), labels=True, output=None)  # fmt: skip
    rows, worse = kept(used), kept(used, LOGITS + 1)
    assert used.settled(rows, worse).kind == "mean"
    got = compare(used, rows, worse, None, Limit.parse("1%"), 0)
    assert got.drop > 0
    assert got.verdict == "fail"


AUC = """
def score(outputs, labels):
    if len(set(labels.tolist())) < 2:
        raise ValueError("only one class")
    ranks = np.argsort(np.argsort(outputs["y"][:, 1])) + 1
    ones = labels.sum()
    return (ranks[labels == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(labels) - ones))
"""


def test_one_float_for_the_set_even_where_batches_have_one_class(written):
    used = metric(written(AUC), labels=True, output=None)
    rows = kept(used)
    assert set(rows) == {"output:y", "labels"}
    assert used.settled(rows, rows).kind == "set"
    assert used.reduce(rows) == pytest.approx(roc_auc_score(LABELS, LOGITS[:, 1]))
    got = compare(used, rows, kept(used, LOGITS + RNG.normal(0, 1, LOGITS.shape)), None, None, 0)
    assert got.drop_ci90[0] < got.drop < got.drop_ci90[1]


def test_rows_and_their_reduce(written):
    reference = written("def score(outputs, labels):\n    return np.c_[outputs['y'][:, 1], labels]\n"
                        "score.reduce = lambda rows: np.corrcoef(rows.T)[0, 1]\n")  # fmt: skip
    used = metric(reference, labels=True, output=None)
    rows = kept(used)
    assert rows["rows"].shape == (200, 2)
    assert used.reduce(rows) == pytest.approx(np.corrcoef(LOGITS[:, 1], LABELS)[0, 1])
    assert used.settled(rows).kind == "set"


def test_an_error_shows_their_lines_and_not_ours(written):
    inner = "def inner(x):\n    return x['logits']\n\n"
    used = metric(written(f"{inner}def score(outputs, labels):\n    return inner(outputs)\n"),
                  labels=True, output=None)  # fmt: skip
    with pytest.raises(DataError) as raised:
        kept(used)
    message = raised.value.message
    assert "KeyError: 'logits'" in message
    assert "line 3, in inner" in message
    assert "line 6, in score" in message
    assert "user_metric" not in message


def test_a_function_that_always_raises_says_so_in_the_end(written):
    reference = written("def score(outputs, labels):\n    raise ValueError('never')\n")
    used = metric(reference, labels=True, output=None)
    with pytest.raises(DataError, match="ValueError: never"):
        used.reduce(kept(used))


def test_a_score_function_that_fails_on_one_batch_is_not_forgiven(written):
    text = "def score(outputs, labels):\n    if {} in labels: raise ValueError('bad')\n"
    text += "    return outputs['y'][:, 0]\n"
    for label in (0, 1):  # in the first batches, in the last ones
        with pytest.raises(DataError, match="ValueError: bad"):
            kept(metric(written(text.format(label)), labels=True, output=None))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return np.zeros(3)", "shape \\[3\\] for 32 samples"),
        ("return 'good'", "wanted numbers"),
        ("return np.full(len(labels), np.nan)", "not finite"),
        ("return labels[:, None] * [1, 2]", "shape"),
    ],
)
def test_wrong_returns(written, body, says):
    with pytest.raises(DataError, match=says):
        kept(metric(written(f"def score(outputs, labels):\n    {body}\n"), labels=True, output=None))


def test_files_that_cannot_be_used(written, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        metric(f"{tmp_path}/none.py:score", labels=True, output=None)
    with pytest.raises(DataError, match="has no function 'scores'") as near:
        metric(written("def score(o, l): return 0.0\n", "scores"), labels=True, output=None)
    assert "'score'" in near.value.hint
    with pytest.raises(DataError, match="SyntaxError"):
        metric(written("def score(:\n"), labels=True, output=None)
    with pytest.raises(DataError, match="ZeroDivisionError"):
        metric(written("1 / 0\n"), labels=True, output=None)
    with pytest.raises(UsageError, match="unknown metric"):
        metric("package.module:score", labels=True, output=None)


def test_a_sibling_file_can_be_imported(written, tmp_path):
    (tmp_path / "beside_mine.py").write_text("def half(n): return np.full(n, 0.5)\nimport numpy as np\n")
    text = "from beside_mine import half\n\ndef score(outputs, labels):\n    return half(len(labels))\n"
    used = metric(written(text), labels=True, output=None)
    assert used.reduce(kept(used)) == 0.5


def test_the_digest_follows_every_byte(written):
    reference = written("def score(o, l): return 0.0\n")
    before = user_code_digest(reference)
    assert user_code_digest(reference) == before
    assert user_code_digest(written("def score(o, l): return 0.0 \n")) != before
