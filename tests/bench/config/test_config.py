"""Configuration and plan: what is read from where, what wins, and which cells it makes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from gauntlet.bench.config.schema import (
    Config,
    ConfigError,
    DataRef,
    Expectation,
    GateTable,
    Group,
    ModelRef,
    load_config,
)
from gauntlet.bench.planning.plan import data_name, make_plan, model_name
from gauntlet.leaderboard.gate.policy import Policy

TOML = """
model = ["cnn.pgd_digits"]
attacks = "quick"
seed = 5
batch_size = 64
samples = "300"
out = "there"
"""


def config(folder, text=None, file="gauntlet.toml", **options):
    if text is not None:
        (folder / file).write_text(text, encoding="utf-8")
    return load_config(options, folder=folder)


def plan(models=("cnn.pgd_digits",), defenses=("none",), attacks=("quick",), threats=("Linf:0.15",), data="digits"):
    group = Group(tuple(map(ModelRef, models)), tuple(defenses), tuple(attacks), tuple(threats), DataRef(data))
    return make_plan(Config((group,)))


def titles(made):
    return [made.title(cell) for cell in made.cells]


# --- where it is read from --------------------------------------------------------------------------------------------


def test_without_a_file_the_default_benchmark_is_planned(tmp_path):
    read = config(tmp_path)
    assert [group.data.spec for group in read.groups] == ["digits"] * len(read.groups)
    assert {cell.info.model for cell in make_plan(read).cells} >= {"cnn.standard_digits", "cnn.trades_digits"}
    assert (read.seed, read.batch_size, read.device, str(read.out)) == (0, None, "auto", "gauntlet-results")
    assert (read.fresh, read.keep_adversarials, read.expect) == (False, True, ())


def test_gauntlet_toml_is_read(tmp_path):
    read = config(tmp_path, TOML)
    (group,) = read.groups
    assert group == Group(
        (ModelRef("cnn.pgd_digits"),), ("none",), ("quick",), ("Linf:0.15",), DataRef("digits", "300")
    )
    assert (read.seed, read.batch_size, str(read.out)) == (5, 64, "there")


@pytest.mark.parametrize("file", ["gauntlet.toml", "pyproject.toml", "mine.toml"])
def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path, file):
    text = "[tool.gauntlet]\nseed = 7\n" if file == "pyproject.toml" else "seed = 7\n"
    (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    named = str(tmp_path / file) if file == "mine.toml" else None
    assert load_config({}, folder=tmp_path, file=named).seed == 7


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_refused_with_the_way_out(tmp_path, encoding):
    (tmp_path / "gauntlet.toml").write_bytes('model = "né.py"'.encode(encoding))
    with pytest.raises(ConfigError, match=r"gauntlet\.toml .*: save it as UTF-8"):
        load_config({}, folder=tmp_path)


def test_the_table_of_pyproject_is_read_where_there_is_no_gauntlet_toml(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.gauntlet]\nseed = 7\n[tool.other]\nx = 1\n")
    assert load_config({}, folder=tmp_path).seed == 7
    assert config(tmp_path, TOML).seed == 5


def test_a_pyproject_without_our_table_changes_nothing(tmp_path):
    assert config(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml") == config(tmp_path / "nowhere")


def test_tools_that_are_no_table_are_refused(tmp_path):
    (tmp_path / "pyproject.toml").write_text("tool = 3\n")
    with pytest.raises(ConfigError, match=r"tool=3 in pyproject.toml must be a table"):
        load_config({}, folder=tmp_path)


@pytest.mark.parametrize("name", ["mine.toml", "pyproject.toml"])
def test_a_named_file_is_read_in_place_of_the_others(tmp_path, name):
    (tmp_path / "gauntlet.toml").write_text("seed = 1")
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / name
    file.write_text("[tool.gauntlet]\nseed = 9" if name == "pyproject.toml" else "seed = 9")
    assert load_config({}, folder=tmp_path, file=str(file)).seed == 9


# --- options win ------------------------------------------------------------------------------------------------------


def test_every_option_wins_over_the_file(tmp_path):
    options = {
        "model": ["a.py:build"],
        "weights": "w.safetensors",
        "mean": "0.1,0.2",
        "std": "0.3,0.4",
        "defense": ["jpeg(quality=50)"],
        "attacks": ["pgd(steps=3,restarts=2),fgsm"],
        "data": "d.npz",
        "samples": "10",
        "threat": ["L2:0.5", "Linf:8/255,Linf:4/255"],
        "seed": 6,
        "device": "cpu",
        "batch_size": 32,
        "out": "here",
        "fresh": True,
        "no_adversarials": True,
    }
    read = config(tmp_path, TOML, **options)
    assert read.groups == (
        Group(
            (ModelRef("a.py:build", "w.safetensors", (0.1, 0.2), (0.3, 0.4)),),
            ("jpeg(quality=50)",),
            ("pgd(steps=3,restarts=2)", "fgsm"),
            ("L2:0.5", "Linf:8/255", "Linf:4/255"),
            DataRef("d.npz", "10"),
        ),
    )
    assert (read.seed, read.device, read.batch_size, str(read.out)) == (6, "cpu", 32, "here")
    assert read.fresh
    assert not read.keep_adversarials


def test_a_seed_of_zero_on_the_command_line_wins_over_the_file(tmp_path):
    assert config(tmp_path, TOML, seed=0).seed == 0


def test_a_batch_size_of_zero_on_the_command_line_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="batch_size=0"):
        config(tmp_path, TOML, batch_size=0)


def test_options_that_were_not_given_leave_the_file_as_it_is(tmp_path):
    absent = {"model": (), "attacks": [], "seed": None, "out": None, "fresh": False, "config": None, "data": ""}
    assert config(tmp_path, TOML, **absent) == config(tmp_path, TOML)


def test_an_option_of_pairing_replaces_the_groups_but_not_what_stands_above_them(tmp_path):
    text = TOML + '[[group]]\nmodel = "cnn.fast_digits"\n[[group]]\nthreat = ["L2:1"]\n'
    assert len(config(tmp_path, text).groups) == 2
    (group,) = config(tmp_path, text, defense=["jpeg"]).groups
    assert (group.models, group.defenses, group.attacks) == ((ModelRef("cnn.pgd_digits"),), ("jpeg",), ("quick",))


def test_groups_inherit_what_stands_above_them(tmp_path):
    text = TOML + '[[group]]\nmodel = "cnn.fast_digits"\n[[group]]\nsamples = "20"\n'
    first, second = config(tmp_path, text).groups
    assert (first.models[0].spec, first.data.samples) == ("cnn.fast_digits", "300")
    assert (second.models[0].spec, second.data.samples) == ("cnn.pgd_digits", "20")


def test_weights_and_normalisation_of_the_file_do_not_reach_another_model(tmp_path):
    text = 'model = "a.py:build"\nweights = "a.safetensors"\nmean = [0.5]\nstd = [0.2]\n'
    assert config(tmp_path, text).groups[0].models == (ModelRef("a.py:build", "a.safetensors", (0.5,), (0.2,)),)
    assert config(tmp_path, text, model=["b.py:build"]).groups[0].models == (ModelRef("b.py:build"),)


def test_the_samples_of_the_file_do_not_reach_other_data(tmp_path):
    assert config(tmp_path, TOML, data="other.npz").groups[0].data == DataRef("other.npz")


@pytest.mark.parametrize(("data", "threat"), [("digits", "Linf:0.15"), ("mine.npz", "Linf:8/255")])
def test_the_threat_model_fits_the_data_where_none_is_named(tmp_path, data, threat):
    assert config(tmp_path, data=data).groups[0].threats == (threat,)


def test_expectations_are_read_and_apply_by_wildcard(tmp_path):
    text = '[[expect]]\nmodel = "cnn.*"\nattack = "pgd(steps=[0-9])"\nmin_robust = 0.5\n[[expect]]\nmax_robust = 1\n'
    one, other = config(tmp_path, text).expect
    assert one == Expectation(model="cnn.*", attack="pgd(steps=[0-9])", min_robust=0.5)
    assert one.applies("cnn.x", "none", "pgd(steps=5)", "Linf:0.1")
    assert not one.applies("cnn.x", "none", "pgd(steps=50)", "Linf:0.1")
    assert not one.applies("net", "none", "pgd(steps=5)", "Linf:0.1")
    assert other.applies("net", "jpeg", "fgsm", "L2:1")


def test_a_gate_is_read_with_its_settings(tmp_path):
    text = TOML + (
        "[gate]\nbaseline = 'b/quick.json'\nmargin = 0.05\nalpha = 0.01\nmin_robust = 1\nallow_undecided = true\n"
        "max_passes_ratio = 2\nmax_memory_ratio = 3.5\n"
    )
    assert config(tmp_path, text).gate == GateTable(
        Path("b/quick.json"),
        Policy(margin=0.05, alpha=0.01, min_robust=1, allow_undecided=True, max_passes_ratio=2, max_memory_ratio=3.5),
    )
    assert config(tmp_path, TOML).gate == GateTable()


def test_floors_of_a_gate_may_differ_by_pattern(tmp_path):
    text = "[tool.gauntlet.gate.min_robust]\n'cnn.*' = 0.5\nquick = 0\n"
    assert config(tmp_path, text, "pyproject.toml").gate.policy.floors == {"cnn.*": 0.5, "quick": 0}


def test_options_that_name_a_baseline_or_narrow_the_run_leave_the_gate_of_the_file_as_it_is(tmp_path):
    read = config(tmp_path, TOML + "[gate]\nbaseline = 'b.json'\n", gate="other.json", samples="5")
    assert read.gate.baseline == Path("b.json")
    assert read.narrowed


# --- what is wrong is named -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = ", ["gauntlet.toml", "TOML"]),
        ("sed = 1", ["'sed'", "seed"]),
        ("[[group]]\nmodell = 'x'", ["'modell'", "group", "model"]),
        ("[[expect]]\nmin_rob = 0.1", ["'min_rob'", "expect", "min_robust"]),
        ("[[expect]]\nmin_robust = 80", ["min_robust=80", "[0, 1]"]),
        ("seed = -1", ["seed=-1"]),
        ("seed = true", ["seed=True"]),
        ("seed = '1'", ["seed='1'"]),
        ("batch_size = 0", ["batch_size=0"]),
        ("model = 3", ["model=3"]),
        ("model = []", ["model=[]"]),
        ("attacks = ' , '", ["attacks=' , '"]),
        ("threat = [0.3]", ["threat=[0.3]"]),
        ("mean = 'x'", ["mean='x'"]),
        ("model = 'a.py:f,b.py:f'\nweights = 'w.pt'", ["weights='w.pt'", "a.py:f", "b.py:f"]),
        ("group = 'x'", ["group", "[[group]]"]),
        ("[group]\nmodel = 'x'", ["group", "[[group]]"]),
        ("[expect]\nmin_robust = 0.1", ["expect", "[[expect]]"]),
        ("[[expect]]\nmodel = 3", ["model=3", "expect"]),
        ("out = 3", ["out=3"]),
        ("device = 1", ["device=1"]),
        ("fresh = 'no'", ["fresh='no'", "true"]),
        ("no_adversarials = 0", ["no_adversarials=0", "true"]),
        ("gate = 'b.json'", ["gate='b.json'", "[gate]"]),
        ("[[gate]]\nmargin = 1", ["gate=", "[gate]"]),
        ("[gate]\nmargins = 0.1", ["'margins'", "gate table", "baseline, early, alpha, margin"]),
        ("[gate]\nbaseline = 3", ["baseline=3", "gate table"]),
        ("[gate]\nbaseline = ''", ["baseline=''", "gate table"]),
        ("[gate]\nmargin = '0.1'", ["margin='0.1'", "a number"]),
        ("[gate]\nmargin = true", ["margin=True", "a number"]),
        ("[gate]\nmargin = 2", ["gate table", "margin 2"]),
        ("[gate]\nmargin = nan", ["gate table", "margin nan"]),
        ("[gate]\nallow_undecided = 1", ["allow_undecided=1", "true or false"]),
        ("[gate]\nmin_robust = '50 %'", ["min_robust='50 %'", "share"]),
        ("[gate]\nmin_robust = 50", ["gate table", "min_robust 50", "0..1"]),
        ("[gate.min_robust]\ncnn.pgd = 0.5", ["min_robust={'cnn': {'pgd': 0.5}}", "by pattern"]),
        ("[gate.min_robust]\n'cnn.*' = 7", ["gate table", "'cnn.*'"]),
    ],
)
def test_a_wrong_value_in_the_file_is_named(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, text)
    for word in words:
        assert word in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"'nowhere\.toml' does not exist"):
        load_config({}, folder=tmp_path, file="nowhere.toml")


def test_a_table_of_pyproject_that_is_no_table_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"tool\.gauntlet"):
        config(tmp_path, "[tool]\ngauntlet = 3\n", "pyproject.toml")


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_every_model_meets_every_defense_attack_and_threat_model_in_that_order():
    made = plan(["cnn.pgd_digits", "cnn.fast_digits"], ["none", "jpeg"], ["fgsm", "pgd"], ["Linf:0.1", "L2:1"])
    found = [(c.info.threat, c.info.model, c.info.defense, c.info.attack) for c in made.cells]
    models, defenses = ["cnn.pgd_digits", "cnn.fast_digits"], ["none", "jpeg"]
    assert found == list(itertools.product(["Linf:0.1", "L2:1.0"], models, defenses, ["fgsm", "pgd"]))


def test_a_wildcard_stands_for_all_models_of_its_pattern_sorted():
    made = plan(["cnn.[ft]*_digits"], attacks=["fgsm"])
    assert [cell.info.model for cell in made.cells] == ["cnn.fast_digits", "cnn.trades_digits"]


def test_what_is_asked_twice_is_planned_once():
    one = Group((ModelRef("cnn.*"),), ("none",), ("quick",), ("Linf:0.15",), DataRef("digits"))
    made = make_plan(Config((one, one)))
    assert make_plan(Config((one,))) == made
    assert len({cell.name for cell in made.cells}) == len(made.cells)


def test_an_attack_of_two_suites_stands_in_the_rows_of_both():
    made = plan(attacks=["quick", "standard"])
    labels = [(cell.info.suite, cell.info.attack) for cell in made.cells]
    assert ("quick", "fgsm") in labels
    assert ("standard", "fgsm") in labels
    assert len(set(titles(made))) == len(made.cells)


def test_titles_are_unique_and_name_what_differs():
    made = plan(threats=["Linf:0.15", "L2:0.5"], attacks=["fgsm"])
    assert titles(made) == ["cnn.pgd_digits × none × fgsm", "cnn.pgd_digits × none × fgsm L2:0.5"]
    groups = [
        Group((ModelRef("cnn.pgd_digits"),), ("none",), ("fgsm",), ("Linf:0.15",), DataRef("digits", samples))
        for samples in ("10", "20")
    ]
    assert titles(make_plan(Config(tuple(groups)))) == [
        "cnn.pgd_digits × none × fgsm on digits[10]",
        "cnn.pgd_digits × none × fgsm on digits[20]",
    ]


def test_two_files_of_the_same_name_are_told_apart():
    made = plan(["a/model.py:build", "b/model.py:build"], attacks=["fgsm"])
    assert len({cell.info.model for cell in made.cells}) == 2
    assert len(set(titles(made))) == 2


def test_two_normalisations_of_one_model_are_told_apart():
    refs = (ModelRef("m.py:f", None, (0.5,), (0.2,)), ModelRef("m.py:f"))
    group = Group(refs, ("none",), ("fgsm",), ("Linf:0.15",), DataRef("digits"))
    assert len({cell.info.model for cell in make_plan(Config((group,))).cells}) == 2


def test_settings_are_resolved_in_the_cell():
    (cell,) = plan(attacks=["pgd(steps=7)"]).cells
    assert cell.info.attack == "pgd(steps=7)"
    assert "steps=7" in cell.info.attack_spec
    assert "restarts=1" in cell.info.attack_spec


def test_settings_in_another_order_are_the_same_cell():
    one, other = plan(attacks=["pgd(steps=7, restarts=2)"]), plan(attacks=["pgd(restarts=2,steps=7)"])
    assert one.cells[0].name == other.cells[0].name


def test_an_attack_for_another_norm_is_skipped_with_the_reason():
    made = plan(attacks=["fgsm", "cw"])
    assert [cell.attack.name for cell in made.cells] == ["fgsm"]
    assert made.skipped == ("attack 'cw' is for L2, not for Linf",)


def test_a_plan_without_any_cell_is_an_error_with_the_reason():
    with pytest.raises(ConfigError, match="'cw' is for L2"):
        plan(attacks=["cw"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ["cnn.standart_digits"]}, ["cnn.standart_digits", "did you mean cnn.standard_digits"]),
        ({"models": ["resnet*"]}, ["resnet*", "gauntlet list"]),
        ({"attacks": ["pgdd"]}, ["pgdd", "did you mean", "pgd"]),
        ({"attacks": ["pgd(step=3)"]}, ["step", "pgd"]),
        ({"attacks": ["pgd(steps=0)"]}, ["steps=0"]),
        ({"attacks": ["pgd(steps"]}, ["pgd(steps"]),
        ({"defenses": ["jpg"]}, ["jpg", "did you mean jpeg"]),
        ({"defenses": ["jpeg(quality=0)"]}, ["quality"]),
        ({"defenses": ["jpeg(q=3)"]}, ["'q'", "jpeg"]),
        ({"threats": ["Linf"]}, ["Linf", "NORM:EPS"]),
        ({"threats": ["Linf:8"]}, ["8/255"]),
    ],
)
def test_a_wrong_name_or_setting_is_told_before_anything_runs(changes, words):
    with pytest.raises((ValueError, LookupError)) as error:
        plan(**changes)
    for word in words:
        assert word in str(error.value.args[0])


def test_names_in_tables_are_short():
    assert model_name(ModelRef("cnn.pgd_digits")) == "cnn.pgd_digits"
    assert model_name(ModelRef("deep/in/model.py:build")) == "model.build"
    assert model_name(ModelRef("package.module:build", "deep/best.pt")) == "package.module.build@best"
    assert data_name(DataRef("deep/data.npz", "0:50")) == "data.npz[0:50]"


@pytest.mark.parametrize(
    ("refs", "names"),
    [
        ([{"mean": [0.1], "std": [0.5]}], ["model.net"]),
        ([{}, {"mean": [0.1]}], ["model.net", "model.net[mean 0.1]"]),
        (
            [{"mean": [0.1]}, {"mean": [0.1], "std": [1 / 3]}],
            ["model.net[mean 0.1]", "model.net[mean 0.1, std 0.333333]"],
        ),
        ([{"weights": "a/w.pt"}, {"weights": "b/w.pt"}, {"weights": "c.pt"}], ["a/w.pt", "b/w.pt", "model.net@c"]),
        ([{"weights": "a/w.pt"}, {"weights": "a/w.pt", "std": [0.5]}], ["model.net@w", "model.net@w[std 0.5]"]),
    ],
)
def test_models_that_differ_in_weights_or_normalisation_differ_in_name_no_longer_than_needed(tmp_path, refs, names):
    texts = [
        "\n".join(
            ["[[group]]", "attacks = 'fgsm'", "model = 'model.py:net'", *(f"{k} = {v!r}" for k, v in ref.items())]
        )
        for ref in refs
    ]
    (tmp_path / "gauntlet.toml").write_text("\n".join(texts))
    found = [cell.info.model for cell in make_plan(load_config({}, folder=tmp_path)).cells]
    assert len(set(found)) == len(refs)
    assert [name.removeprefix("model.py:net@") for name in found] == names


def test_an_expectation_that_applies_to_no_cell_is_an_error_unless_options_narrow_the_run(tmp_path):
    (tmp_path / "gauntlet.toml").write_text(
        'model = ["cnn.fast_digits"]\nattacks = ["fgsm"]\n[[expect]]\nmodel = "cnn.fats_digits"\nmin_robust = 0.1\n'
    )
    with pytest.raises(ConfigError, match=r"cnn.fats_digits.*applies to no cell"):
        make_plan(load_config({}, folder=tmp_path))
    assert make_plan(load_config({"attacks": ["pgd"]}, folder=tmp_path)).cells


def test_the_threat_model_of_an_expectation_may_be_written_in_any_form(tmp_path):
    (tmp_path / "gauntlet.toml").write_text(
        'threat = ["Linf:0.1"]\n[[expect]]\nthreat = "linf:1/10"\nmin_robust = 0.1\n'
    )
    config = load_config({}, folder=tmp_path)
    assert config.expect[0].threat == "Linf:0.1"
    assert make_plan(config).cells
