"""Settings: flags leave out, variables win over the file, the file is found upwards, paths are its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpack.core.settings import KEYS, load_settings
from mlpack.errors import RecipeError, UsageError


def test_without_anything_the_store_is_here(tmp_path):
    settings = load_settings(tmp_path, {})
    assert settings.store == tmp_path / "artifacts"
    assert settings.cache.is_absolute()
    assert settings.model is None


def test_the_file_is_found_upwards_and_its_paths_are_relative_to_it(tmp_path):
    (tmp_path / "mlpack.toml").write_text(
        'model = "model.pt2"\nfactory = "net.py:make"\ndata = "random:64"\nmetric = "top1"\n'
        'store = "out"\nthreads = 2\nlimit = "1%"\n'
    )
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    settings = load_settings(inner, {})
    assert settings.model == str(tmp_path / "model.pt2")
    assert settings.factory == f"{tmp_path}/net.py:make"
    assert (settings.data, settings.metric, settings.limit) == ("random:64", "top1", "1%")
    assert settings.store == tmp_path / "out"
    assert settings.threads == 2
    assert settings.file == tmp_path / "mlpack.toml"


def test_an_importable_reference_stays_what_it_is(tmp_path):
    (tmp_path / "mlpack.toml").write_text('model = "package.module:make"\n')
    assert load_settings(tmp_path, {}).model == "package.module:make"


def test_pyproject_counts_only_with_our_table_and_yields_to_mlpack_toml(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert load_settings(tmp_path, {}).file is None
    (tmp_path / "pyproject.toml").write_text('[tool.mlpack]\ntarget = "a100"\n')
    assert load_settings(tmp_path, {}).target == "a100"
    (tmp_path / "mlpack.toml").write_text('target = "t4"\n')
    assert load_settings(tmp_path, {}).target == "t4"


def test_variables_win_over_the_file(tmp_path):
    (tmp_path / "mlpack.toml").write_text('store = "out"\nthreads = 2\n')
    settings = load_settings(tmp_path, {"MLPACK_STORE": "/elsewhere", "MLPACK_THREADS": "3", "MLPACK_NAME": ""})
    assert settings.store == Path("/elsewhere")
    assert settings.threads == 3
    assert settings.name is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('tagret = "a100"', "tagret"),
        ("threads = 0", "threads"),
        ("threads = true", "threads"),
        ("model = 3", "model"),
        ("model = ", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_a_recipe_error_that_names_it(tmp_path, text, said):
    file = tmp_path / "mlpack.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=said) as wrong:
        load_settings(tmp_path, {})
    assert str(file) in wrong.value.message
    assert wrong.value.hint


def test_an_unknown_key_gets_the_nearest_spelling(tmp_path):
    for key in KEYS:
        (tmp_path / "mlpack.toml").write_text(f'{key}x = "1"\n')
        with pytest.raises(RecipeError) as wrong:
            load_settings(tmp_path, {})
        assert wrong.value.hint == f"did you mean {key!r}?"


@pytest.mark.parametrize("text", ["0", "two", "-1", "²"])
def test_a_wrong_variable_is_a_usage_error(tmp_path, text):
    with pytest.raises(UsageError, match="MLPACK_THREADS"):
        load_settings(tmp_path, {"MLPACK_THREADS": text})
