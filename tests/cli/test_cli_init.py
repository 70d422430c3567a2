"""`mlpack init`: finds what lies there, writes a file that the other commands read, and never over another."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from mlpack.core.settings import KEYS, load_settings


@pytest.fixture
def folder(place):
    import torch

    net = torch.nn.Linear(4, 2).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(3, 4),)), place / "net.pt2")
    torch.save(net.state_dict(), place / "net.pt")
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    np.savez(place / "eval.npz", input=rows, labels=np.arange(30) % 2)
    (place / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    return place


def written(folder):
    return tomllib.loads((folder / "mlpack.toml").read_text(encoding="utf-8"))


def test_what_lies_there_is_found_and_the_other_commands_use_it(cli, folder):
    done = cli("init", "--json")
    assert done.code == 0, done.err
    assert (done.document["model"], done.document["data"]) == ("net.pt2", "eval.npz")
    assert written(folder) == {"model": "net.pt2", "data": "eval.npz"}
    settings = load_settings(folder)
    assert settings.model == str(folder / "net.pt2")
    text = (folder / "mlpack.toml").read_text(encoding="utf-8")
    assert "30 samples of input=float32:batch,4; labels" in text
    assert "net.pt" in text
    assert cli("plan").code in {0, 6}


def test_people_are_told_what_was_found_and_what_cannot_be_used(cli, folder):
    done = cli("init")
    for part in ("net.pt2: exported program", "eval.npz: 30 samples", "broken.npz cannot be used", "mlpack optimize"):
        assert part in done.err, part


def test_every_line_that_is_a_comment_is_a_setting_that_exists(cli, folder):
    cli("init")
    lines = (folder / "mlpack.toml").read_text(encoding="utf-8").splitlines()
    told = [line.removeprefix("# ") for line in lines if " = " in line]
    assert {line.partition(" = ")[0] for line in told} == set(KEYS)
    for line in told:
        tomllib.loads(line)


def test_a_file_that_is_there_stays_unless_forced(cli, folder):
    (folder / "mlpack.toml").write_text('model = "mine.pt2"\n')
    done = cli("init")
    assert done.code == 2
    assert "--force" in done.err
    assert written(folder) == {"model": "mine.pt2"}
    assert cli("init", "--force").code == 0
    assert written(folder)["model"] == "net.pt2"


def test_an_empty_folder_gets_a_file_to_fill_in(cli, place):
    done = cli("init", "--json")
    assert (done.code, done.document["model"], done.document["data"]) == (0, None, None)
    assert written(place) == {}


def test_what_is_named_has_to_be_usable(cli, folder):
    assert cli("init", "nothing.pt2").code == 2
    assert cli("init", "net.pt2", "--data", "broken.npz").code == 2
    assert not (folder / "mlpack.toml").exists()


def test_names_are_quoted_as_toml_has_it(cli, folder):
    odd = folder / 'two "words".npz'
    (folder / "eval.npz").rename(odd)
    (folder / "broken.npz").unlink()
    assert cli("init").code == 0
    assert written(folder)["data"] == odd.name
