"""References, tags, and reading what other versions of mlpack wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_artifact import make_artifact, make_draft

from mlpack.errors import Tampered, UsageError
from mlpack.store.find import find
from mlpack.store.names import NAME, Reference, check_tag, parse
from mlpack.store.publish import publish
from mlpack.store.read import read
from mlpack.store.remove import remove_version
from mlpack.store.tags import read_tags, set_tag, tags_of


@pytest.fixture
def store(tmp_path):
    folder, draft = tmp_path / "store", make_draft(tmp_path / "draft")
    for keys in (("a",), ("b",), ("c",)):
        publish(folder, draft, make_artifact(keys=keys))
    return folder


def version(stored):
    return stored.artifact.version


@given(st.from_regex(NAME, fullmatch=True), st.integers(1, 10**6))
def test_a_reference_says_what_was_put_into_it(name, number):
    assert parse(name) == parse(f"{name}@latest") == Reference(name)
    assert parse(f"{name}@{number}") == Reference(name, version=number)
    assert parse(f"{name}@sha256:{number:08x}") == Reference(name, digest=f"{number:08x}")


@given(st.text())
def test_any_text_is_a_reference_or_a_usage_error(text):
    try:
        name = parse(text).name
    except UsageError:
        return
    assert NAME.fullmatch(name)


def test_the_grammar_of_references(store):
    set_tag(read(store / "reviews" / "2"), "prod")
    digest = read(store / "reviews" / "1").artifact.digest
    assert version(find(store, "reviews")) == 3
    assert version(find(store, "reviews@latest")) == 3
    assert version(find(store, "reviews@1")) == 1
    assert version(find(store, "reviews@prod")) == 2
    assert version(find(store, f"reviews@sha256:{digest[:12]}")) == 1
    assert version(find(store, str(store / "reviews" / "2"))) == 2
    assert version(find(store, str(store / "reviews" / "2" / "artifact.json"))) == 2


def test_left_out_it_is_the_usual_name_or_the_only_one(store, tmp_path):
    assert version(find(store, None)) == 3
    publish(store, tmp_path / "draft", make_artifact(name="digits"))
    assert find(store, None, "digits").artifact.name == "digits"
    with pytest.raises(UsageError) as several:
        find(store, None)
    assert several.value.hint == "name one: digits, reviews"


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("review", "did you mean 'reviews'?"),
        ("reviews@7", "did you mean reviews@3?"),
        ("reviews@prud", "did you mean reviews@prod?"),
        ("reviews@zzz", "known: latest, prod"),
        ("reviews@sha256:ffffffffffff", "mlpack list reviews"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is_nearest(store, reference, hint):
    set_tag(read(store / "reviews" / "2"), "prod")
    with pytest.raises(UsageError) as missing:
        find(store, reference)
    assert missing.value.hint == hint


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    for reference in (None, "reviews"):
        with pytest.raises(UsageError, match="is empty"):
            find(tmp_path / "nothing", reference)


@pytest.mark.parametrize("tag", ["latest", "3", "Prod", "a b", ""])
def test_bad_tags_are_refused(tag):
    with pytest.raises(UsageError):
        check_tag(tag)


def test_tags_move_and_go_with_their_version(store):
    second = read(store / "reviews" / "2")
    assert set_tag(second, "prod") is None
    assert set_tag(read(store / "reviews" / "3"), "prod") == 2
    set_tag(second, "old")
    assert tags_of(second) == ["old"]
    with pytest.raises(UsageError, match="is tagged old"):
        remove_version(second)
    remove_version(second, tagged="remove")
    assert read_tags(store / "reviews") == {"prod": 3}


def test_a_candidate_is_tagged_only_when_accepted(store, tmp_path):
    candidate = publish(store, tmp_path / "draft", make_artifact(status="candidate", verdict="inconclusive"))
    with pytest.raises(UsageError) as refused:
        set_tag(candidate, "prod")
    assert refused.value.hint == "mlpack tag reviews@4 prod --force"
    set_tag(candidate, "prod", candidates="accept")
    assert version(find(store, "reviews@prod")) == 4


def rewrite(store, **changes):
    file = store / "reviews" / "1" / "artifact.json"
    content = {**json.loads(file.read_text()), **changes}
    file.chmod(0o644)
    file.write_text(json.dumps(content))
    return file.parent


def test_a_later_schema_names_the_version_that_reads_it(store):
    with pytest.raises(UsageError) as newer:
        read(rewrite(store, schema=2, mlpack_version="0.9.0"))
    assert newer.value.exit_code == 2
    assert newer.value.hint == "pip install 'mlpack-toolchain>=0.9.0'"


def test_a_field_of_a_later_mlpack_is_no_damage(store):
    with pytest.raises(UsageError) as newer:
        read(rewrite(store, mlpack_version="0.9.0", colour="blue"))
    assert "colour" in newer.value.message
    with pytest.raises(Tampered):
        read(rewrite(store, mlpack_version="0.1.0", colour="blue"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": 1}', b'{"schema": "1"}'])
def test_a_damaged_record_is_said_to_be_damaged(store, content):
    folder = rewrite(store)
    (folder / "artifact.json").write_bytes(content)
    with pytest.raises(Tampered, match="is damaged"):
        read(folder)
