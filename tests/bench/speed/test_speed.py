"""The comparison with other libraries: what is counted, judged and written."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from builders import executable, linear
from gauntlet.attacks.fgsm import FGSM
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.bench.cli.main import cli
from gauntlet.bench.speed.comparisons import COMPARISONS
from gauntlet.bench.speed.measure import BarePasses, Counted, Workload, measure
from gauntlet.bench.speed.report import overview, ratios, whole_ratios
from gauntlet.bench.speed.rounds import ParticipantSummary

LINF = ThreatModel("Linf", 0.1)


@pytest.fixture
def work():
    """A linear model of two classes whose margins are 1 to 20 hundredths of a unit, and 20 images of 2x2 pixels."""
    weight = torch.tensor([[0.5] * 4, [-0.5] * 4]) / 4
    model = linear(weight, torch.tensor([-0.25, 0.25]), dtype=torch.float32)
    images = (0.5 + torch.arange(1, 21) / 100).view(20, 1, 1, 1).expand(20, 1, 2, 2).contiguous()
    labels = torch.zeros(20, dtype=torch.int64)
    ids = [f"s{i}" for i in range(20)]
    return Workload(model, images, labels, ids, model(images), total=40, batch_size=8)


def test_what_stands_is_what_the_closed_form_says(work):
    measured = measure(PGD(steps=5), executable(PGD(steps=5)).stages, work, work.model, LINF, 0, minimum_norm=False)
    # An image at 0.5 + d is broken by a change of d: nine are nearer than 0.1, and the one at 0.1 ties.
    assert measured.standing.tolist()[:9] == [False] * 9
    assert measured.standing.tolist()[10:] == [True] * 10
    assert measured.seconds > 0


class Sequence(nn.Module):
    """Counts calls apart from the wrapper."""

    def __init__(self, model):
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x):
        self.images += len(x)
        return self.model(x)


def test_passes_are_counted_from_outside(work):
    spy = Sequence(work.model)
    measured = measure(FGSM(), executable(FGSM()).stages, work, spy, LINF, 0, minimum_norm=False)
    assert measured.forwards == spy.images == 40
    assert measured.backwards == 20


def test_a_backward_pass_counts_the_images_of_its_forward_pass(work):
    counted = Counted(work.model)
    x = work.images[:3].clone().requires_grad_()
    torch.autograd.grad(counted(x).sum(), x)
    counted(work.images[:5])
    assert (counted.forwards, counted.backwards) == (8, 3)


def test_bare_passes_add_up():
    assert BarePasses(forward=1.0, both=3.0).seconds(10, 4) == 6 + 12


def line(participant, seconds, form="", whole=None, checked=None):
    return ParticipantSummary(participant, form, seconds, 10, 10, (0.5, 0.6), 0.1, 0.0, 1.0, whole, checked)


def test_ratios_are_to_the_fastest_peer_of_each_form():
    lines = [line("gauntlet", 1.0), line("a", 2.0), line("b", 4.0), line("a", 1.25, "fast")]
    assert ratios(lines) == {"": 0.5, "fast": 0.8}
    assert "| – | – | 0.50 |" in overview([(COMPARISONS[0], lines)])


def test_whole_evaluations_are_compared_with_the_fastest_peer_in_the_original_form():
    lines = [line("gauntlet", 1.0, whole=3.0, checked=6.0), line("a", 2.0, whole=2.0), line("b", 0.1, whole=4.0)]
    assert whole_ratios([*lines, line("a", 1.0, "fast")]) == (1.5, 3.0)
    assert "| 1.50 | 3.00 |" in overview([(COMPARISONS[0], lines)])


def test_the_command_compares_with_what_is_installed_and_writes_each_turn(tmp_path):
    arguments = ["speed", "fgsm", "PGD-40 L*2", "--samples=40", "--rounds=2", f"--out={tmp_path}"]
    done = CliRunner().invoke(cli, [*arguments, "--peers=t*"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    turns = pd.read_csv(tmp_path / "speed.csv", keep_default_na=False)
    assert set(turns["participant"]) == {"gauntlet", "torchattacks"}
    assert len(turns) == 2 * 2 * 2
    assert (turns["standing"] <= 40).all()
    ours = turns[(turns["row"] == "FGSM") & (turns["participant"] == "gauntlet")]
    theirs = turns[(turns["row"] == "FGSM") & (turns["participant"] == "torchattacks")]
    assert ours["standing"].tolist() == theirs["standing"].tolist()
    assert ours["whole_standing"].tolist() == theirs["whole_standing"].tolist() == ours["standing"].tolist()
    assert ours["whole_s"].astype(float).gt(0).all()
    assert ours["checked_s"].astype(float).gt(0).all()
    assert theirs["checked_s"].tolist() == ["", ""]
    assert ours["occupancy"].astype(float).between(0.01, 1).all()
    assert theirs["occupancy"].tolist() == ["", ""]
    assert (turns["peak_mib"] > 0).all()
    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "### FGSM: cnn.pgd_digits, digits, Linf:0.15" in text
    assert "### PGD-40 L2: cnn.pgd_digits, digits, L2:0.8" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nonsense"], "no row fits 'nonsense'"), (["--rounds=0"], "rounds=0"), (["--threads=0"], "threads=0")],
)
def test_wrong_arguments_are_named(arguments, message, tmp_path):
    done = CliRunner().invoke(cli, ["speed", *arguments, f"--out={tmp_path}"])
    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)


def test_every_row_names_attacks_that_exist():
    from gauntlet.attacks.registry.settings import parse_named
    from gauntlet.bench.registries import ATTACKS

    for row in COMPARISONS:
        for spec in (row.ours, *row.peers):
            named = parse_named(spec)
            threat = ThreatModel(row.norm, 0.1)
            assert ATTACKS.get(named.name).make(threat, **named.keywords) is not None
