"""The result of a cell in words, and the names of settings."""

from __future__ import annotations

import numpy as np
import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.report.cell_text import attack_settings, describe_cell, settings_lines
from gauntlet.leaderboard.report.cells_csv import cells_frame
from gauntlet.leaderboard.report.leaderboard_csv import leaderboard_frame
from gauntlet.leaderboard.rows.build_rows import build_rows

CASCADE = (
    "gauntlet: Cascade(stages=(" + ", ".join(f"Stage(label='s{i}', rule=PGD(steps={i}))" for i in range(60)) + "))"
)
CERTIFICATE = cell_info(attack="certificate", attack_kind="certificate")
REPLAY = cell_info(attack="replay", attack_kind="transfer", role="replay")


def replay(forwards):
    return result(bits(100, 99), REPLAY, forwards=np.full(100, forwards))


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (result(bits(20, 3)), "robust 15.0 % of 20"),
        (result(bits(100, 94), CERTIFICATE, certified=bits(100, 0), correct=bits(100, 94)), "proven 0 % of 100"),
        (result(bits(100, 98), CERTIFICATE, certified=bits(100, 90)), "proven 90.0 % of 100, 2 broken by its search"),
        (
            result(bits(100, 94), CERTIFICATE, correct=bits(100, 94)),
            "proven 0 % of 100, no certificate is known for its layers",
        ),
        (replay(0.0), "nothing to replay"),
        (replay(1.0), "robust 99.0 % of 100"),
    ],
)
def test_a_cell_says_what_it_measured(cell, text):
    assert describe_cell(cell) == text


def test_a_replay_without_examples_is_no_attack_of_its_row():
    (row,) = build_rows([result(bits(100, 100)), replay(0.0)])
    assert row.attacks["replay"] == "–"
    assert row.worst_attack == "pgd"
    (tried,) = build_rows([result(bits(100, 100)), replay(1.0)])
    assert tried.worst_attack == "replay"
    assert leaderboard_frame([row])["robust[replay]"].isna().all()


def test_a_cascade_is_named_by_name_and_digest_in_tables():
    name = attack_settings(CASCADE)
    assert name.startswith("gauntlet#")
    assert len(name) == len("gauntlet#") + 8
    assert attack_settings(CASCADE.replace("steps=7", "steps=8")) != name
    assert attack_settings("pgd: PGD(steps=40)") == "pgd: PGD(steps=40)"
    assert cells_frame([result([True], cell_info(attack_spec=CASCADE))])["attack_spec"].tolist() == [name]


def test_settings_in_full_have_a_line_for_each_stage():
    first, *stages = settings_lines(CASCADE)
    assert first == "gauntlet: Cascade(stages=("
    assert stages[0] == "Stage(label='s0', rule=PGD(steps=0))"
    assert len(stages) == 60
    assert settings_lines("pgd: PGD(steps=40)") == ["pgd: PGD(steps=40)"]
