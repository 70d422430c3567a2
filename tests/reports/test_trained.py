"""What training did is told in one line: answers where they can be right, else the loss."""

import json

from mlpack.reports.trained import int8_trained_of, trained_line, trained_of

METRICS = {
    "stopped": "all epochs", "steps": 1200, "best_step": 1100, "seconds": 61.4, "rows": 5400, "rows_held_out": 600,
    "right_is": "labels", "held_out_right": [0.912, 0.9875], "held_out_loss": [0.8, 0.1234567],
}  # fmt: skip


def test_right_answers_before_and_after():
    assert trained_line(METRICS) == (
        "91.2% → 98.8% of 600 held-out rows right, after 1,100 steps of 1,200 on 5,400 rows, 61 s (ended: all epochs)"
    )
    assert "answered as the original" in trained_line({**METRICS, "right_is": "teacher"})


def test_numbers_are_told_by_their_loss():
    line = trained_line({**METRICS, "right_is": None, "held_out_right": [None, None]})
    assert line.startswith("held-out loss 0.8 → 0.1235, after 1,100 steps")


def test_an_artifact_that_was_not_trained_has_none(tmp_path):
    assert trained_of(tmp_path) is None


def test_a_trained_int8_graph_is_told_by_its_own_report(tmp_path):
    (tmp_path / "reports").mkdir()
    file = tmp_path / "reports" / "quantize.json"
    file.write_text(json.dumps({"metrics": {"share": 1.0, "training": METRICS}}))
    assert int8_trained_of(tmp_path) == METRICS
    assert trained_of(tmp_path) is None
    file.write_text(json.dumps({"metrics": {"share": 1.0}}))
    assert int8_trained_of(tmp_path) is None
