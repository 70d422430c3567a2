"""What was tried, and which of it nothing beats."""

from hypothesis import given
from hypothesis import strategies as st

from mlpack.core.artifact import CandidateRecord
from mlpack.reports.tried import front_of


def candidate(ms, drop):
    return CandidateRecord(
        recipe="r", numerics="int8", backend="onnxruntime", size_bytes=1, chosen=False, why="",
        accuracy=None if drop is None else {"drop": drop, "metric": "top1"},
        latency=None if ms is None else {"geometric_mean_ms": ms, "p50_ms": {"1": ms}},
    )  # fmt: skip


POINTS = st.tuples(
    st.one_of(st.none(), st.integers(1, 9).map(float)), st.one_of(st.none(), st.integers(-3, 9).map(float))
)


@given(st.lists(POINTS, max_size=12))
def test_the_front_is_all_that_nothing_beats(points):
    front = front_of([candidate(ms, drop) for ms, drop in points])
    known = {at: point for at, point in enumerate(points) if None not in point}
    assert front <= known.keys()
    for at, (ms, drop) in known.items():
        better = [other for other in known.values() if other[0] <= ms and other[1] <= drop and other != (ms, drop)]
        assert (at in front) == (not better)
    if known:
        fastest = min(known.values())
        assert any(known[at] == fastest for at in front), "the fastest is always on it"
