"""The commands around the store, through the command line, for people and as JSON."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
DOCS = Path(__file__).parents[2] / "docs"


def test_list_shows_every_version_with_its_tags(cli, store):
    cli("tag", "reviews@2", "prod")
    done = cli("list", "--json")
    assert done.code == 0
    rows = done.document["artifacts"]
    assert [(row["version"], row["status"], row["tags"]) for row in rows] == [
        (1, "final", []), (2, "final", ["prod"]), (3, "candidate", []),
    ]  # fmt: skip
    shown = cli("list")
    assert shown.out == ""
    assert "reviews@2" in shown.err
    assert "prod" in shown.err
    assert max(map(len, shown.err.splitlines())) <= 80


def test_list_goes_on_past_a_damaged_version_and_says_so(cli, store):
    file = store / "reviews" / "2" / "artifact.json"
    file.chmod(0o644)
    file.write_text("{")
    done = cli("list")
    assert done.code == 0
    assert "reviews@3" in done.err
    assert f"warning: {file} is damaged" in done.err


def test_an_empty_store_says_how_to_fill_it(cli, place):
    assert cli("list").code == 0
    assert "mlpack optimize" in cli("list").err
    assert cli("list", "--json").document["artifacts"] == []
    assert cli("list", "x").code == 2


def test_show_is_the_artifact_with_its_path(cli, store):
    done = cli("show", "reviews@1", "--json")
    document = done.document
    assert document.pop("path") == str(store / "reviews" / "1")
    assert document.pop("tags") == []
    assert document == json.loads((store / "reviews" / "1" / "artifact.json").read_text())
    shown = cli("show", "reviews@1").err
    for part in (
        "0.792 -> 0.79",
        "208 -> 210",
        "[-0.001, 0.005]",
        "1% = 0.00792",
        "2.50x",
        "4.8 kB -> 1.2 kB",
    ):
        assert part in shown, part
    assert max(map(len, shown.splitlines())) <= 80


def test_show_without_reference_takes_the_settings_name(cli, store, place):
    assert cli("show", "--json").document["version"] == 3
    (place / "mlpack.toml").write_text('name = "other"\n')
    assert cli("show").code == 2


def test_diff_lists_what_differs_and_nothing_else(cli, store):
    done = cli("diff", "reviews@1", "reviews@2", "--json")
    found = {(each["part"], each["what"]): (each["a"], each["b"]) for each in done.document["differences"]}
    assert found == {
        ("model", "numerics"): ("int8", "bf16"),
        ("accuracy", "limit_text"): ("1%", "2%"),
        ("lineage", "1 export.numerics"): ("int8", "bf16"),
        ("lineage", "2 quantize.numerics"): ("int8", "bf16"),
    }
    assert "bf16" in cli("diff", "reviews@1", "reviews@2").err
    assert "do not differ" in cli("diff", "reviews@1", "reviews@1").err


def test_tag_points_and_moves_and_refuses_candidates(cli, store):
    assert cli("tag", "reviews@1", "prod", "--json").document == {
        "name": "reviews", "tag": "prod", "version": 1, "before": None,
    }  # fmt: skip
    assert "(was reviews@1)" in cli("tag", "reviews@2", "prod").err
    assert cli("show", "reviews@prod", "--json").document["version"] == 2
    refused = cli("tag", "reviews@3", "prod")
    assert refused.code == 2
    assert "hint: mlpack tag reviews@3 prod --force" in refused.err
    assert cli("tag", "reviews@3", "prod", "--force").code == 0
    assert cli("tag", "reviews@1", "latest").code == 2


def test_verify_is_5_when_a_file_changed(cli, store):
    assert cli("verify", "reviews@1").code == 0
    assert cli("verify", "reviews@1", "--json").document["files"] == 4
    file = store / "reviews" / "1" / "model" / "model.onnx"
    file.chmod(0o644)
    file.unlink()
    file.write_bytes(b"other")
    done = cli("verify", "reviews@1", "--json")
    assert done.code == 5
    assert done.document["error"]["kind"] == "Tampered"
    assert "model/model.onnx" in done.document["error"]["message"]
    assert cli("verify", "reviews@2").code == 0


def test_rm_refuses_a_tagged_version_without_force(cli, store):
    cli("tag", "reviews@1", "prod")
    assert cli("rm", "reviews@1").code == 2
    assert cli("rm", "reviews@1", "--force", "--json").document["version"] == 1
    assert not (store / "reviews" / "1").exists()
    assert cli("rm", "reviews@1").code == 2


def test_gc_lists_first_and_then_removes(cli, store, place):
    entry = place / "cache" / "stages" / "ab" / "abc"
    entry.mkdir(parents=True)
    (entry / "stage.json").write_text("{}")
    ranges = place / "cache" / "ranges" / "abc"
    ranges.mkdir(parents=True)
    (ranges / "all.json").write_text("[]")
    compiled = place / "cache" / "compiled"
    (compiled / "ab").mkdir(parents=True)
    (compiled / "ab" / "kernel.cpp").write_text("")
    assert cli("gc", "--json").document["entries"] == []
    listed = cli("gc", "--dry-run", "--older-than", "0", "--json").document
    assert [(each["path"], each["kind"]) for each in listed["entries"]] == [
        (str(entry), "stage"),
        (str(ranges), "ranges"),
        (str(compiled), "compiled"),
    ]
    assert entry.is_dir()
    assert cli("gc", "--older-than", "0", "--json").document["removed"] is True
    assert not entry.exists()
    assert not ranges.exists()
    assert not compiled.exists()


def test_a_store_of_another_place_is_named_by_flag_or_variable(cli, store, place, monkeypatch):
    (place / "else").mkdir()
    monkeypatch.chdir(place / "else")
    assert cli("list", "--json").document["artifacts"] == []
    assert len(cli("list", "--store", "../artifacts", "--json").document["artifacts"]) == 3
    monkeypatch.setenv("MLPACK_STORE", str(store))
    assert len(cli("list", "--json").document["artifacts"]) == 3


def test_a_store_that_cannot_be_written_is_exit_3(cli, place, monkeypatch):
    done = cli("gc", "--store", "/proc/version", "--json")
    assert done.code == 2
    assert "is no folder" in done.document["error"]["message"]


def test_targets_shows_all_and_one(cli):
    names = [each["name"] for each in cli("targets", "--json").document["targets"]]
    assert names[0] == "cpu"
    assert "a100" in names
    assert "624 TOP/s, dense" in cli("targets", "a100").err
    whole = cli("targets", "a100").err
    assert "1248 with 2:4 sparsity" in whole
    assert "1g.5gb" in whole
    assert cli("targets", "a100", "--json").document["targets"][0]["sms"] == 108
    wrong = cli("targets", "rtx409")
    assert wrong.code == 2
    assert "hint: did you mean 'rtx4090'?" in wrong.err


def test_doctor_names_libraries_with_their_range_and_ends_well_here(cli):
    done = cli("doctor", "--json")
    assert done.code == 0, done.err
    checks = {(each["area"], each["name"]): each for each in done.document["checks"]}
    assert "tested up to" in checks["library", "torch"]["wanted"]
    assert checks["machine", "threads"]["found"].endswith("usable")
    assert {name for area, name in checks if area == "disk"} == {"store", "cache"}
    assert done.document["ok"] is True


def pretend_installed(monkeypatch, folder, name, version):
    record = folder / f"{name}-{version}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="no wheel for this platform")
def test_doctor_tells_which_builder_of_engines_there_is(cli, place, monkeypatch):
    def told():
        return next(each for each in cli("doctor", "--json").document["checks"] if each["name"] == "TensorRT")

    assert told()["status"] == "ok"
    assert told()["found"].startswith("TensorRT-RTX 1.")
    pretend_installed(monkeypatch, place, "tensorrt_rtx_cu13_bindings", "1.2.0")
    assert (told()["status"], told()["hint"]) == ("warning", "pip install 'mlpack-toolchain[tensorrt-rtx]'")


def test_an_engine_is_asked_for_where_its_card_is(cli, place):
    asked = {"cpu": "builds for NVIDIA cards", "a100": "the card that it is for", "v100": "needs compute capability"}
    for target, said in asked.items():
        done = cli(
            "optimize", str(TINY / "model.py:model"), "--fp16", "--backend", "tensorrt", "--target", target, "--json"
        )
        assert (done.code, done.document["error"]["kind"]) == (2, "UnsupportedNumerics")
        assert said in done.document["error"]["message"]


def test_doctor_and_start_up_tell_of_the_other_project_of_our_name(cli, place, monkeypatch):
    pretend_installed(monkeypatch, place, "mlpack", "4.4.0")
    done = cli("doctor", "--json")
    assert done.code == 3
    assert done.document["error"]["hint"].startswith("pip uninstall mlpack && pip install")
    assert "mlpack 4.4.0" in done.document["error"]["message"]
    assert "mlpack 4.4.0" in cli("targets", "t4").err


def test_doctor_is_3_with_the_line_to_paste_when_a_library_is_too_old(cli, place, monkeypatch):
    pretend_installed(monkeypatch, place, "openvino", "2020.1.0")
    done = cli("doctor", "--json")
    assert done.code == 3
    assert done.document["error"]["hint"] == "pip install 'openvino>=2025.0'"


def test_recipes_lists_files_with_their_first_comment(cli, monkeypatch, place):
    from mlpack.api import recipes

    folder = place / "recipes"
    folder.mkdir()
    (folder / "any-int8-cpu.yaml").write_text("# INT8 for any model.\n\nsteps: []\n")
    (folder / "README.md").write_text("# Recipes")
    monkeypatch.setattr(recipes, "shipped_recipes", lambda: folder)
    document = cli("recipes", "--json").document
    assert document["recipes"] == [
        {
            "name": "any-int8-cpu",
            "description": "INT8 for any model.",
            "path": str(folder / "any-int8-cpu.yaml"),
        }
    ]
    assert "INT8 for any model." in cli("recipes").err


def test_logs_lists_and_prints(cli, place, process):
    assert process("show", "nothing").code == 2
    listed = cli("logs", "--json").document["logs"]
    assert [(each["number"], each["command"], each["exit_code"]) for each in listed] == [(1, "show", 2)]
    printed = cli("logs", "1")
    assert "argv show nothing" in printed.out
    assert printed.out.rstrip().endswith("exit 2")
    assert cli("logs", "9").code == 2


def test_the_published_schema_of_artifact_json_is_up_to_date():
    writer = runpy.run_path(str(DOCS / "write_artifact_schema.py"))
    published = json.loads((DOCS / "artifact.schema.json").read_text())
    assert published == writer["schema"](), "run: python docs/write_artifact_schema.py"
    assert {"schema", "digest", "lineage", "files"} <= set(published["properties"])


def test_the_pages_of_the_commands_and_of_python_are_current():
    written = runpy.run_path(str(DOCS / "write_pages.py"))["pages"]()
    there = {path.relative_to(DOCS).as_posix() for path in (DOCS / "commands").glob("*.md")}
    assert there == {name for name in written if name.startswith("commands/")}
    for name, text in written.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"run: python docs/write_pages.py ({name})"
