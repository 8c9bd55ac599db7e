"""Configurations that ask for more than there is: a sentence with the limit, and neither memory nor recursion."""

from __future__ import annotations

import json

import pytest

from gauntlet.attacks.registry.settings import parse_named
from gauntlet.bench.config import files
from gauntlet.bench.config.files import ConfigError, read_file
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.models.files.safe_weights import read_checkpoint
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.planning.plan import MOST_CELLS, make_plan
from gauntlet.leaderboard.gate.baseline import BaselineError
from gauntlet.leaderboard.gate.baseline_file import read_baseline
from gauntlet.leaderboard.results import user_text
from gauntlet.leaderboard.results.user_text import read_user_text

DEEP = "[" * 100_000 + "]" * 100_000


def config(folder, text):
    (folder / "gauntlet.toml").write_text(text)
    return load_config({}, folder=folder)


def test_a_thousand_million_cells_are_refused_with_the_limit(tmp_path):
    names = {name: [f"{name}{i}" for i in range(1000)] for name in ("model", "defense", "attacks")}
    text = "\n".join(f"{name} = {json.dumps(values)}" for name, values in names.items())
    with pytest.raises(ConfigError, match=rf"1000000000 cells or more, and a plan has at most {MOST_CELLS}"):
        make_plan(config(tmp_path, text))


def test_cells_of_several_groups_add_up(tmp_path):
    models, attacks = (json.dumps([f"{letter}{i}" for i in range(count)]) for letter, count in (("m", 200), ("a", 300)))
    group = f"[[group]]\nmodel = {models}\nattacks = {attacks}\n"
    with pytest.raises(ConfigError, match="120000 cells or more"):
        make_plan(config(tmp_path, group * 2))


def test_a_plan_below_the_limit_is_made(tmp_path):
    attacks = json.dumps([f"pgd(steps={i})" for i in range(1, 301)])
    assert len(make_plan(config(tmp_path, f"model = 'cnn.fast_digits'\nattacks = {attacks}")).cells) == 300


def test_wildcards_count_with_what_they_stand_for(tmp_path, monkeypatch):
    monkeypatch.setattr("gauntlet.bench.planning.plan.MOST_CELLS", 3)
    with pytest.raises(ConfigError, match="4 cells or more, and a plan has at most 3"):
        make_plan(config(tmp_path, "model = 'cnn.*_digits'\nattacks = 'fgsm'"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"model = {DEEP}", "nested too deeply"),
        ("model = " + "{a = " * 100_000, "nested too deeply"),
        ("a" + ".a" * 100_000 + " = 1", "more than 20 parts"),
        ("a" + ' . "a"' * 50 + " = 1", "more than 20 parts"),
        ("[" + "a." * 100_000 + "a]", "more than 20 parts"),
    ],
)
def test_nested_toml_is_a_sentence(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, text)


def test_points_in_names_and_numbers_are_no_nesting(tmp_path):
    models = [f"package.of.many.parts.module{i}:build(mean=(0.1, 0.2, 0.3))" for i in range(40)]
    (tmp_path / "gauntlet.toml").write_text(f"model = {json.dumps(models)}\nthreat = ['Linf:0.1', 'L2:0.5']\n")
    assert read_file(tmp_path)["model"] == models


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 30)
    with pytest.raises(ConfigError, match="at most 30"):
        config(tmp_path, "seed = 1 " + "#" * 30)
    monkeypatch.setattr(user_text, "MOST_BYTES", 30)
    with pytest.raises(ValueError, match="more than 30 bytes"):
        read_user_text(tmp_path / "gauntlet.toml")


@pytest.mark.parametrize(
    "value", ["(" * 5000 + "1" + ")" * 5000, "-" * 100_000 + "1", "(1," * 90 + ")" * 90, "9**9**9", "9" * 10_000]
)
def test_settings_are_no_programs(value):
    with pytest.raises(ValueError, match="not understood"):
        parse_named(f"pgd(steps={value})")


def test_nested_json_of_a_baseline_and_of_weights_is_a_sentence(tmp_path):
    (tmp_path / "base.json").write_text(DEEP)
    with pytest.raises(BaselineError, match="nested too deeply"):
        read_baseline(tmp_path / "base.json")
    (tmp_path / "model.safetensors.index.json").write_text(DEEP)
    with pytest.raises(ModelError, match="no index of files"):
        read_checkpoint(tmp_path / "model.safetensors.index.json")
