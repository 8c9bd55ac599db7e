"""A JSON file of a results folder is what was written, or an error that says so."""

from __future__ import annotations

import json

import pytest

from gauntlet.leaderboard.results import sealed_json
from gauntlet.leaderboard.results.sealed_json import parse_json, read_json, read_sealed, sealed

FIELDS = {"seconds": 1.25, "keys": ["a", "b"], "none": None, "text": "é\n"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(sealed(FIELDS, "mine"), encoding="utf-8")
    return path


def test_what_is_sealed_is_read_without_its_digest(file):
    assert read_sealed(file, "mine") == FIELDS


def test_tuples_and_key_order_do_not_matter(file):
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(fields.items()))))
    assert read_sealed(file, "mine") == FIELDS
    file.write_text(sealed({"pair": (1, (2, 3))}, "mine"))
    assert read_sealed(file, "mine") == {"pair": [1, [2, 3]]}


def test_every_changed_digit_is_found(file):
    text = file.read_text()
    at = text.index("1.25")
    for place in (0, 2, 3):
        file.write_text(text[: at + place] + "9" + text[at + place + 1 :])
        with pytest.raises(ValueError, match="altered"):
            read_sealed(file, "mine")


def test_a_file_in_the_place_of_another_is_found(file):
    with pytest.raises(ValueError, match="altered"):
        read_sealed(file, "another")


def test_fields_that_are_not_covered_may_be_edited(file):
    file.write_text(sealed(FIELDS, "mine", plugins=["a.py"]))
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "plugins": ["b.py"]}))
    assert read_sealed(file, "mine", without=("plugins",)) == {**FIELDS, "plugins": ["b.py"]}
    file.write_text(json.dumps({**fields, "seconds": 2}))
    with pytest.raises(ValueError, match="altered"):
        read_sealed(file, "mine", without=("plugins",))


def test_a_file_without_a_digest_is_read_as_it_is(file):
    file.write_text(json.dumps(FIELDS))
    assert read_sealed(file, "mine") == FIELDS


@pytest.mark.parametrize("text", ["", "[]", "5", '"text"', "null", "{", "[" * 200_000, '{"a":' * 200_000, "\x00"])
def test_anything_else_is_an_error(file, text):
    file.write_text(text)
    with pytest.raises(ValueError, match=r"\w+"):
        read_sealed(file, "mine")


def test_a_file_that_is_too_large_is_not_read(file, monkeypatch):
    monkeypatch.setattr(sealed_json, "MOST_BYTES", 20)
    with pytest.raises(ValueError, match="more than 20 bytes"):
        read_json(file)


def test_nesting_is_an_error_and_no_recursion():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 200_000 + "]" * 200_000)
