"""A target of one's own is a file: checked as it is read, and as good as one of the catalogue."""

import json

import pytest

from mlpack.core.targets import load_target
from mlpack.errors import UsageError


def described(folder, text, file="lab-box.yaml"):
    path = folder / file
    path.write_text(text)
    return path


def test_what_differs_from_a_known_target_is_enough(tmp_path):
    path = described(tmp_path, "extends: a100\nmemory_gb: 20\ntitle: half an A100\nnumerics: [fp32, fp16, int8]\n")
    target, whole = load_target(str(path)), load_target("a100")
    assert (target.name, target.title, target.memory_gb) == ("lab-box", "half an A100", 20)
    assert target.numerics == ("fp32", "fp16", "int8")
    assert (target.rules, target.bandwidth_gb_s, target.kind) == (whole.rules, whole.bandwidth_gb_s, "cuda")
    assert not target.here


def test_a_whole_one(tmp_path):
    path = described(
        tmp_path,
        "name: pi-5\nkind: cpu\nisa: [asimd, asimddp]\nnumerics: [fp32, fp16, int8]\nrules: arm\n"
        "source: https://example.org/pi5\ndate: 2026-11-01\n",
    )
    target = load_target(str(path))
    assert (target.name, target.rules, target.source, target.date) == (
        "pi-5",
        "arm",
        "https://example.org/pi5",
        "2026-11-01",
    )


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("extends: a1000", "extends: unknown target 'a1000'", "did you mean 'a100'"),
        ("extends: a100\nmemory: 4", "unknown key 'memory'", "did you mean 'memory_gb'"),
        ("extends: a100\nmemory_gb: much", "memory_gb", "extends: a100"),
        ("extends: a100\nname: a100", "already a target 'a100'", "another"),
        ("extends: a100\nname: Of Mine", "is no name", "small letters"),
        ("extends: a100\nnumerics: [int9]", "unknown numerics 'int9'", "did you mean"),
        ("extends: zen4\nrules: x86-vnni", "unknown rule set 'x86-vnni'", "did you mean 'x86-vnni-u8s8'"),
        ("extends: a100\nhere: true", "here", "leave `here` out"),
        ("kind: cpu", "numerics", "extends: a100"),
        ("- a\n- b", "does not describe a target", "extends: a100"),
        ("a: [", "not valid YAML", "extends: a100"),
        ("1: 2", "does not describe a target", "extends: a100"),
        ("", "does not describe a target", "extends: a100"),
    ],
)
def test_what_is_no_target_is_refused_in_one_line(tmp_path, text, said, hint):
    path = described(tmp_path, text)
    with pytest.raises(UsageError) as wrong:
        load_target(str(path))
    assert wrong.value.message.startswith(f"{path}")
    assert said in wrong.value.message
    assert hint in wrong.value.hint
    assert "\n" not in wrong.value.message + wrong.value.hint


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_target(str(tmp_path / "none.yaml"))


def test_the_command_line_shows_it_and_plans_for_it(cli, place):
    described(place, "extends: t4\nmemory_gb: 8\n", "edge.yaml")
    shown = cli("targets", "edge.yaml", "--json")
    assert shown.code == 0
    (target,) = json.loads(shown.out)["targets"]
    assert (target["name"], target["memory_gb"]) == ("edge", 8)
    assert cli("targets", "nowhere.yaml").code == 2


def test_new_rates_drop_the_sparse_ones_of_the_target_that_they_differ_from(tmp_path):
    slower = load_target(str(described(tmp_path, "extends: a100\npeak: {fp16: 100}\nsms: 42\nmig: [1g.5gb]\n")))
    assert (slower.peak, slower.sparse_peak, slower.sms, slower.mig) == ({"fp16": 100}, {}, 42, ("1g.5gb",))
    assert load_target(str(described(tmp_path, "extends: a100", "same.yaml"))).sparse_peak["int8"] == 1248
