"""`gauntlet diagnose`: a report on one pair, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks.catalog import CHECKS
from gauntlet.bench.checks.hidden_masks import MASKS
from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.diagnose import masks
from gauntlet.bench.diagnose import matrix as matrices
from gauntlet.bench.diagnose.diagnose import DiagnosisError, DiagnosisRequest, diagnose
from gauntlet.bench.diagnose.report import report
from gauntlet.bench.registries import DEFENSES, MODELS


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Ten thousand draws are for those who wait."""
    monkeypatch.setattr("gauntlet.bench.checks.effort.NOISE_DRAWS", 200)


def request(model="cnn.standard_digits", defense="none", attack="pgd(steps=20)", samples="20", threat="Linf:0.15"):
    return DiagnosisRequest(
        ModelRef(model), defense, DataRef("digits", samples), ThreatModel.parse(threat), attack, device="cpu"
    )


@pytest.mark.slow
def test_an_honest_model_is_given_a_clean_bill_and_every_check_is_shown():
    found = diagnose(request(attack="adaptive"))
    text = report(found, "gauntlet diagnose --model cnn.standard_digits")
    assert found.standing == ()
    assert "No check speaks against this number" in text
    assert "upper bound" in text
    for check in CHECKS:
        assert f"| {check.name} |" in text
    assert "gauntlet diagnose --model cnn.standard_digits" in text
    assert "adaptive at eps 0.075" in text
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<table>") == 3
    assert {row.count("<td>") for row in html.split("<tr>") if "<td>" in row} == {3, 5}


def test_a_masked_model_under_a_naive_attack_is_not_to_be_trusted():
    mask = "gauntlet.bench.checks.hidden_masks:rounded_softmax"
    fooled = diagnose(request(mask, attack="naive"))
    names = {flag.name for flag in fooled.standing}
    assert {"unavailable-gradients", "zero-gradient", "planted-example", "unbounded-attack"} <= names
    text = report(fooled, "…")
    assert "This number cannot be trusted" in text
    assert "evidence: bpda (yes), black-box (no), decision-based (no), evidence (no)" in text
    # The single step has BPDA's gradient, since the model's own is measured to be of no use; the naive attack takes that.
    assert [one.cell.techniques[""] for one in fooled.row if one.cell.attack in ("fgsm", "naive")] == ["bpda", "naive"]


@pytest.mark.slow
def test_the_adaptive_attack_answers_what_masked_gradients_set_off():
    answered = diagnose(request("gauntlet.bench.checks.hidden_masks:rounded_softmax", attack="adaptive", samples="12"))
    assert {"unavailable-gradients", "zero-gradient"}.isdisjoint(flag.name for flag in answered.standing)
    assert "bpda (run)" in report(answered, "…")


def test_the_twin_of_a_defense_is_attacked_and_declared_is_set_beside_measured():
    found = diagnose(request(defense="bit_depth(bits=2)", attack="pgd(steps=5)", samples="8"))
    assert [result.cell.defense for result in found.twin] == ["none"]
    assert found.card.name == "bit_depth"
    assert found.profile.gradients == "none"
    text = report(found, "…")
    assert "| useful gradients | no | none |" in text
    assert "on the model without the defense" in text


def test_the_command_prints_and_writes_the_report_and_fails_where_a_check_blocks(call, tmp_path):
    ask = ("--data", "digits", "--samples", "12", "--device", "cpu")
    good = call("diagnose", "--model", "cnn.standard_digits", "--attack", "pgd(steps=40)", *ask)
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("# Diagnosis of cnn.")
    assert "attack " in good.stderr
    assert "check planted-example" in good.stderr
    out = tmp_path / "report.md"
    bad = call(
        "diagnose",
        "--model",
        "gauntlet.bench.checks.hidden_masks:detached_input",
        "--attack",
        "naive",
        *ask,
        "--out",
        out,
    )
    assert bad.returncode == 1
    assert "cannot be trusted" in out.read_text(encoding="utf-8")
    assert "--threat Linf:0.15" in out.read_text(encoding="utf-8")
    assert "| fgsm | " in out.read_text(encoding="utf-8"), "a single step is made by BPDA"
    assert "Not run: " not in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model is missing"),
        (("--model", "cnn.standard_digits", "--threat", "Linf:0.1:target=3"), "untargeted"),
        (("--model", "cnn.standard_digits", "--mean", "a"), "mean='a'"),
        (("--model", "cnn.standard_digit"), "did you mean"),
        (("--model", "cnn.standard_digits", "--attack", "replay"), "searches for examples"),
    ],
)
def test_a_wrong_question_is_refused_with_the_way_out(call, arguments, message):
    done = call("diagnose", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_attack_that_fails_is_named():
    with pytest.raises(DiagnosisError, match="failed: ModelError"):
        diagnose(request("gauntlet.bench.checks.hidden_masks:TestTimeAscent"))


def test_the_matrix_has_a_line_for_every_honest_model_every_defense_and_every_mask():
    pairs = matrices.pairs()
    assert [pair.model for pair in pairs if pair.defense == "none" and ":" not in pair.model] == MODELS.names(
        "cnn.*_digits"
    )
    assert {pair.defense for pair in pairs} == set(DEFENSES.names())
    assert sum(":" in pair.model for pair in pairs) == len(MASKS)


def test_the_masks_follow_the_matrix_with_the_same_samples_and_folder(monkeypatch, tmp_path):
    def table(name):
        return lambda *asked: iter([f"{name} {asked[0]} {asked[1]} {asked[4].name}"])

    monkeypatch.setattr(matrices, "matrix", table("checks"))
    monkeypatch.setattr(masks, "masks_table", table("masks"))
    printed = CliRunner().invoke(cli, ["diagnose", "--matrix", "--samples", "12", "--out", str(tmp_path / "kept")])
    assert printed.stdout.split("\n") == ["checks 12 Linf:0.15 kept", "", "masks 12 Linf:0.15 kept", ""]


@pytest.mark.slow
def test_a_line_of_the_matrix_tells_fired_answered_and_naive_apart(monkeypatch, tmp_path):
    chosen = [
        matrices.MatrixPair("honest", "cnn.standard_digits"),
        matrices.MatrixPair("hidden", "gauntlet.bench.checks.hidden_masks:rounded_softmax"),
    ]
    monkeypatch.setattr(matrices, "pairs", lambda: chosen)
    lines = list(matrices.matrix("12", "Linf:0.15", 0, "cpu", tmp_path, lambda line: None))
    columns = {check.name: 4 + place for place, check in enumerate(CHECKS)}
    honest, hidden = ([part.strip() for part in line.strip("|").split("|")] for line in lines[-2:])
    assert len(honest) == len(hidden) == 4 + len(CHECKS)
    assert honest[columns["zero-gradient"]] == "·"
    assert hidden[columns["zero-gradient"]] == "a"
    assert hidden[columns["planted-example"]] == "n"


def test_the_tables_leave_the_latest_run_of_the_default_folder_alone(tmp_path, monkeypatch):
    folders = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gauntlet.bench.cli.diagnose.print_masks", lambda options, out: folders.append(out))
    monkeypatch.setattr("gauntlet.bench.cli.diagnose.print_matrix", lambda options, out: folders.append(out))
    for option in ("--masks", "--matrix"):
        assert CliRunner().invoke(cli, ["diagnose", option]).exit_code == 0
    assert Path("gauntlet-results") not in folders
    assert len(folders) >= 2
