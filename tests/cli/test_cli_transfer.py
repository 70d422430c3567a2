"""`mlpack save` and `mlpack load`, from one store to another."""

from __future__ import annotations


def test_an_artifact_goes_from_one_store_to_another(cli, store, place):
    done = cli("save", "reviews@1", "one.tar", "--json")
    assert done.code == 0, done.err
    digest = done.document["digest"]
    told = cli("load", "one.tar", "--store", "elsewhere", "--json").document
    assert (told["name"], told["version"], told["digest"], told["there"]) == ("reviews", 1, digest, False)
    assert cli("verify", "reviews", "--store", "elsewhere").code == 0
    assert "was there already" in cli("load", "one.tar", "--store", "elsewhere").err


def test_a_file_that_is_there_stays_unless_forced(cli, store, place):
    (place / "one.tar").write_text("mine")
    assert cli("save", "reviews@1", "one.tar").code == 2
    assert (place / "one.tar").read_text() == "mine"
    assert cli("save", "reviews@1", "one.tar", "--force").code == 0


def test_what_is_no_tar_is_refused(cli, store, place):
    (place / "no.tar").write_text("no tar")
    done = cli("load", "no.tar")
    assert done.code == 2
    assert "is no tar" in done.err
    assert cli("load", "nothing.tar").code == 2
