"""Masks of known mechanisms: the attacker who knows one breaks it, and the table says what those who do not know it leave."""

from __future__ import annotations

import pytest
import torch

import gauntlet
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks.masks.catalog import MASKS
from gauntlet.bench.checks.masks.informed import informed
from gauntlet.bench.checks.masks.training import trained
from gauntlet.bench.diagnose.masks import HEAD, attack_mask, masks_table
from gauntlet.bench.models.cnn import cnn
from gauntlet.leaderboard.results import cell_summary as cells

LINF = ThreatModel("Linf", 0.15)
BY_NAME = {mask.name: mask for mask in MASKS}
ENOUGH = 0.35
"""An attacker who leaves more does not know the mask well enough."""


def attacked(mask, count, **settings):
    data = gauntlet.load_data("digits")
    images, labels, ids = data.images[:count], data.labels[:count], data.ids[:count]
    return informed(mask.build(), mask.twin(), images, labels, ids, LINF, randomised=mask.randomised, **settings)


def test_there_are_eighteen_mechanisms_each_with_a_name_and_a_source_of_its_own_words():
    assert len(BY_NAME) == len(MASKS) >= 18
    assert all(mask.summary and mask.source for mask in MASKS)
    assert sum(mask.randomised for mask in MASKS) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_a_mask_is_right_on_clean_images_hides_its_gradient_or_draws_and_its_twin_has_one(name):
    mask, data = BY_NAME[name], gauntlet.load_data("digits")
    images, labels = data.images[:100], data.labels[:100]
    pipeline, twin = mask.build(), mask.twin()
    assert not pipeline.training
    assert not twin.training
    with torch.no_grad():
        assert (pipeline(images).argmax(1) == labels).float().mean() >= 0.85
        assert (twin(images).argmax(1) == labels).float().mean() >= 0.85
    point = images.clone().requires_grad_()
    outputs = twin(point)
    other = outputs.scatter(1, labels[:, None], -torch.inf).amax(1)
    (other - outputs.gather(1, labels[:, None])[:, 0]).sum().backward()
    assert (point.grad.flatten(1).abs().amax(1) > 0).float().mean() >= 0.95


def test_training_is_deterministic_leaves_the_generator_alone_and_gives_copies():
    before = torch.get_rng_state()
    one, two = trained(cnn, 9, epochs=1), trained(cnn, 9, epochs=1)
    assert torch.equal(before, torch.get_rng_state())
    assert one is not two
    first = [weight.clone() for weight in two.parameters()]
    with torch.no_grad():
        next(one.parameters()).zero_()
    again = trained(cnn, 9, epochs=1)
    assert all(torch.equal(old, new) for old, new in zip(first, again.parameters(), strict=True))


def test_the_informed_attacker_breaks_what_hides_its_gradient_without_more_than_its_budget():
    found = attacked(BY_NAME["hard_labels"], 12, steps=20, starts=2)
    assert found.clean.successes == 12
    assert found.robust.estimate <= ENOUGH
    # Two forward passes and a backward pass a step, and the last iterates.
    assert 0 < found.passes <= 2 * (3 * 20 + 2)


def test_an_example_counts_only_where_it_breaks_the_pipeline_itself():
    robust = gauntlet.load_model("cnn.trades_digits").module
    data = gauntlet.load_data("digits")
    weak = BY_NAME["hard_labels"].twin()
    found = informed(robust, weak, data.images[:12], data.labels[:12], data.ids[:12], LINF, steps=10, starts=1)
    own = informed(weak, weak, data.images[:12], data.labels[:12], data.ids[:12], LINF, steps=10, starts=1)
    assert own.robust.estimate <= ENOUGH < found.robust.estimate


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_the_informed_attacker_leaves_little_of_every_mask(name):
    found = attacked(BY_NAME[name], 40)
    assert found.robust.estimate <= ENOUGH


@pytest.mark.slow
def test_the_table_has_a_line_for_each_mask_with_all_attackers(tmp_path):
    chosen = tuple(BY_NAME[name] for name in ("hard_labels", "false_rounding", "majority_vote", "drawn_member"))
    lines = list(masks_table("12", "Linf:0.15", 0, "cpu", tmp_path, lambda line: None, chosen))
    assert "Linf:0.15, seed 0" in lines[0]
    assert lines[2] == HEAD
    names = [part.strip() for part in HEAD.strip("|").split("|")]
    for mask, line in zip(chosen, lines[4:], strict=True):
        row = dict(zip(names, (part.strip() for part in line.strip("|").split("|")), strict=True))
        assert row["mask"] == mask.name
        assert float(row["informed"]) <= 100 * ENOUGH
        assert float(row["adaptive"]) <= float(row["naive"]) <= float(row["clean"])
        assert int(row["passes adaptive"]) > 0
        assert int(row["passes informed"]) > 0
        assert row["rank"] == ("blocked" if row["standing flags"] else "ranked")


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_the_adaptive_attack_leaves_hardly_more_than_the_informed_one_or_the_row_is_blocked(name, tmp_path):
    found = attack_mask(BY_NAME[name], "60", "Linf:0.15", 0, "cpu", tmp_path)
    print(found.line)  # noqa: T201 With -s, the table.
    assert found.adaptive.error is None
    assert found.standing or cells.robust_accuracy(found.adaptive).estimate <= found.informed.robust.estimate + 0.03
