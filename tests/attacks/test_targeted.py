"""Attacks towards a class: the threat model's text, every rule against closed-form truth, and whole runs."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import builders
import gauntlet
from builders import assert_same, built, distances, linear, reseal
from gauntlet.attacks.adapters.run_whole import run_whole
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.oracle import AttackError
from gauntlet.attacks.solving.solver import Task
from gauntlet.attacks.views.targeted_view import Towards, towards
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.verify.verifier import NonFiniteLogitsError, Verifier
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.formatting import target_meaning
from gauntlet.leaderboard.rows.build_rows import build_rows

CLASSES = 5


# The threat model


@pytest.mark.parametrize(
    ("text", "canonical", "target"),
    [
        ("Linf:8/255:target=3", "Linf:8/255:target=3", "3"),
        ("l2: 0.5 : Target = 03", "L2:0.5:target=3", "3"),
        ("L1:12:target=next", "L1:12.0:target=next", "next"),
        ("Linf:0.15:target=NEXT", "Linf:0.15:target=next", "next"),
        ("Linf:0.15:target=0", "Linf:0.15:target=0", "0"),
    ],
)
def test_a_target_is_read_and_written_so_that_it_reads_back(text, canonical, target):
    threat = ThreatModel.parse(text)
    assert threat.target == target
    assert str(threat) == canonical
    assert ThreatModel.parse(canonical) == threat


@pytest.mark.parametrize("target", [3, "3", np.int64(3), torch.tensor(3)])
def test_a_target_given_as_a_number_is_the_same_threat_model(target):
    assert str(ThreatModel("L2", 0.5, target)) == "L2:0.5:target=3"


def test_an_untargeted_threat_model_is_written_as_before_there_were_targets():
    threat = ThreatModel("Linf", 0.15)
    assert str(threat) == "Linf:0.15"
    # The settings of an adapter, which are in the keys of its stored results, show it.
    assert repr(threat) == "ThreatModel(norm='Linf', eps=0.15)"
    assert repr(ThreatModel("Linf", 0.15, "3")) == "ThreatModel(norm='Linf', eps=0.15, target='3')"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("Linf:0.1:", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:3", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:target", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:target=", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:goal=3", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:target=-1", "target '-1'"),
        ("Linf:0.1:target=1.5", "target '1.5'"),
        ("Linf:0.1:target=cat", "target 'cat'"),
        ("Linf:target=3", "not a number"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused_with_the_way_out(text, match):
    with pytest.raises(ValueError, match=match):
        ThreatModel.parse(text)


def test_the_targets_of_labels_are_the_class_the_next_one_or_the_labels_themselves():
    labels = torch.arange(CLASSES)
    assert ThreatModel("L2", 1, "3").targets(labels, CLASSES).tolist() == [3] * CLASSES
    assert ThreatModel("L2", 1, "next").targets(labels, CLASSES).tolist() == [1, 2, 3, 4, 0]
    assert ThreatModel("L2", 1).targets(labels, CLASSES) is labels


def test_random_targets_are_other_classes_all_of_them_and_a_sample_s_own():
    labels, ids = torch.arange(2000) % CLASSES, [f"test/{i}" for i in range(2000)]
    threat = ThreatModel("L2", 1, "random")
    targets = threat.targets(labels, CLASSES, ids)
    assert (targets != labels).all()
    counts = torch.bincount((targets - labels) % CLASSES, minlength=CLASSES)[1:]
    # 500 are expected of each of the four others, with a standard deviation of 19.
    assert counts.min() > 400
    assert counts.max() < 600
    backwards = threat.targets(labels.flip(0), CLASSES, ids[::-1])
    assert torch.equal(backwards.flip(0), targets)
    with pytest.raises(ValueError, match="0 ids for 2000 labels"):
        threat.targets(labels, CLASSES)


def test_a_class_that_the_model_does_not_have_is_refused_by_its_number_and_theirs():
    with pytest.raises(ValueError, match=r"target 5 .*has 5: use 0 to 4"):
        ThreatModel("L2", 1, "5").targets(torch.arange(3), CLASSES)


# The problem of two classes


def test_two_class_logits_are_the_best_of_the_others_and_the_target():
    logits = torch.tensor([[1.0, -2.0, 3.0], [-5.0, -4.0, -9.0]])
    assert towards(logits, torch.tensor([2, 2])).tolist() == [[1.0, 3.0], [-4.0, -9.0]]


def test_being_misclassified_there_is_being_predicted_as_the_target_ties_included():
    # All rows of four small whole numbers: most have ties.
    grid = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 4)
    for target in range(4):
        for logits in (grid, grid * 1e30, grid.half(), grid.bfloat16(), grid.double() * 1e-300):
            view = towards(logits, torch.full((len(logits),), target))
            assert torch.equal(view.argmax(1) != 0, logits.argmax(1) == target)


def test_a_tie_moves_the_other_logit_by_no_more_than_one_number():
    logits = torch.tensor([[7.0, 7.0, 0.0]])
    low, high = towards(logits, torch.tensor([0]))[0]
    assert high == 7
    assert low == torch.nextafter(high, torch.tensor(0.0))


def test_the_gradient_towards_a_class_is_that_of_the_margin_and_shared_by_tied_others():
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0], [4.0, 3.0, 3.0, 4.0]], requires_grad=True)
    view = towards(logits, torch.tensor([3, 0]))
    (gradient,) = torch.autograd.grad((view[:, 1] - view[:, 0]).sum(), logits)
    assert gradient.tolist() == [[0, -0.5, -0.5, 1], [1, 0, 0, -1]]


# Every rule, where the smallest perturbation is known: the class is the brightest of the first five pixels


def brightest(scale=1.0, dtype=torch.float64):
    return linear(scale * torch.eye(12)[:CLASSES], dtype=dtype)


def pictures(count=60):
    images = torch.rand(count, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images, images.flatten(1)[:, :CLASSES].argmax(1)


def smallest(images, targets, norm):
    """The target's pixel must rise, and those above it sink, to one level. That never leaves the box."""
    pixels = images.flatten(1)[:, :CLASSES]
    own, others = pixels.gather(1, targets[:, None]), pixels.scatter(1, targets[:, None], -torch.inf)
    if norm == "Linf":
        return (others.amax(1) - own.squeeze(1)) / 2
    # The level is the mean of the pixels that move, which are the brightest ones and the target's: the smallest cost of
    # the levels below which no pixel sinks.
    top = others.sort(1, descending=True).values[:, : CLASSES - 1]
    levels = torch.stack([(own.squeeze(1) + top[:, :n].sum(1)) / (n + 1) for n in range(1, CLASSES)], 1)
    valid = levels <= top
    sunk = (top[:, None] - levels[:, :, None]).clamp_min(0).square().sum(2)
    cost = ((levels - own).square() + sunk).sqrt()
    return cost.masked_fill(~valid, torch.inf).amin(1)


def outcomes(attack, model, images, labels, threat, **options):
    targets = threat.targets(labels, CLASSES)
    return builders.outcomes(attack, model, images, labels, threat, targets=targets, classes=CLASSES, **options)


def attacked(attack, model, images, labels, threat):
    """Distance of the example of each sample, infinite where there is none."""
    found, targets = outcomes(attack, model, images, labels, threat), threat.targets(labels, CLASSES)
    return distances(found, model, images, labels, threat.norm, targets)


INSIDE = {
    "pgd": 0.06,
    "pgd(loss=cw)": 0.06,
    "apgd": 0.01,
    "apgd(loss=dlr)": 0.01,
    "apgd-t": 0.01,
    "gauntlet": 0.01,
    "autoattack(steps=40, queries=20)": 0.01,
}
"""Attacks, and the share of eps below it in which they may miss: steps that do not shrink go past a sharp corner."""


@pytest.mark.parametrize("target", ["next", "3"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("text", INSIDE)
def test_the_target_is_reached_exactly_where_its_region_is_within_eps(text, norm, target):
    images, labels = pictures()
    attackable = ThreatModel(norm, 1.0, target).targets(labels, CLASSES) != labels
    images, labels = images[attackable], labels[attackable]
    exact = smallest(images, ThreatModel(norm, 1.0, target).targets(labels, CLASSES), norm)
    threat = ThreatModel(norm, float(exact.median()), target)
    share = exact / threat.eps
    clear = (share < 1 - INSIDE[text]) | (share > 1 + 1e-6)
    assert clear.sum() >= 40
    found = attacked(text, brightest(), images, labels, threat).isfinite()
    assert torch.equal(found[clear], share[clear] < 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_square_and_noise_reach_the_target_nowhere_beyond_eps_and_often_within(norm):
    images, labels = pictures()
    exact = smallest(images, (labels + 1) % CLASSES, norm)
    threat = ThreatModel(norm, float(exact.median()), "next")
    for text, least in (("square(queries=300)", 0.3), ("noise", 0.1)):
        found = attacked(text, brightest(), images, labels, threat).isfinite()
        assert (exact[found] <= threat.eps * (1 + 1e-6)).all()
        assert found.sum() >= least * (exact <= threat.eps).sum()


@pytest.mark.parametrize(
    ("text", "norms", "median"),
    [
        ("fab", ("Linf", "L2"), 1.05),
        ("fab-t", ("Linf", "L2"), 1.05),
        ("fmn", ("Linf", "L2"), 1.01),
        ("ddn", ("L2",), 1.01),
        ("cw(search_steps=5)", ("L2",), 1.01),
        ("deepfool", ("Linf", "L2"), 1.1),
        ("hop_skip_jump(queries=600, probes=30)", ("Linf", "L2"), 1.15),
    ],
)
def test_a_minimum_norm_attack_finds_the_smallest_move_into_the_target_class(text, norms, median):
    images, labels = pictures(40)
    for norm in norms:
        exact = smallest(images, (labels + 1) % CLASSES, norm)
        ratio = attacked(text, brightest(), images, labels, ThreatModel(norm, 0.1, "next")) / exact
        assert ratio.isfinite().all()
        assert ratio.min() >= 1 - 1e-6
        assert ratio.median() <= median


def test_an_attack_towards_a_class_needs_more_than_one_towards_any():
    images, labels = pictures()
    near = attacked("fmn", brightest(), images, labels, ThreatModel("L2", 0.1, "next"))
    any_class = Verifier(brightest(), images, labels, [str(i) for i in range(60)], ThreatModel("L2", 0.1), seed=0)
    assert (any_class.measure(images, torch.arange(60)).margin.abs() / 2**0.5 <= near + 1e-9).all()


@pytest.mark.parametrize(
    "text", ["pgd(steps=5)", "apgd-t(steps=5)", "square(queries=40)", "fab(steps=5)", "gauntlet:fast"]
)
def test_neither_batch_size_nor_company_changes_a_sample_s_outcome(text):
    images, labels = pictures(24)
    threat = ThreatModel("Linf", 0.2, "next")
    whole = outcomes(text, brightest(), images, labels, threat)
    for batch_size in (1, 7):
        again = outcomes(text, brightest(), images, labels, threat, batch_size=batch_size)
        assert_same(whole, again)
        assert [one.stage for one in whole] == [one.stage for one in again]


class Level(nn.Module):
    """The class `ahead` leads on grey images; on all others, classes 0 and 1 share the largest logit."""

    def __init__(self, ahead):
        super().__init__()
        self.ahead = ahead

    def forward(self, x):
        logits = torch.zeros(len(x), CLASSES, dtype=x.dtype)
        grey = (x - 0.5).flatten(1).abs().amax(1) < 1e-3
        logits[:, :2], logits[:, self.ahead] = (~grey).double()[:, None], 1.0
        return logits


@pytest.mark.parametrize(("label", "target", "reached"), [(1, "0", True), (0, "1", False)])
def test_a_tie_counts_only_where_the_target_comes_first(label, target, reached):
    grey, threat = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64), ThreatModel("Linf", 0.1, target)
    (one,) = outcomes("noise(draws=3)", Level(label), grey, torch.tensor([label]), threat)
    assert (one.adversarial is not None) == reached
    assert one.forwards == (1 if reached else 3)


def test_logits_that_are_not_finite_are_reported_even_in_a_class_that_plays_no_part():
    class Broken(nn.Module):
        def forward(self, x):
            logits = x.flatten(1)[:, :CLASSES].clone()
            logits[:, 4] = torch.where((x - 0.5).flatten(1).abs().amax(1) > 0.01, -torch.inf, logits[:, 4])
            return logits

    images = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    with pytest.raises(NonFiniteLogitsError):
        outcomes("noise", Broken(), images, torch.tensor([0]), ThreatModel("Linf", 0.1, "1"))


def test_a_model_without_a_gradient_is_refused_towards_a_class_too():
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :CLASSES]

    with pytest.raises(AttackError, match="no gradient"):
        outcomes("fgsm", Detached(), *pictures(2), ThreatModel("Linf", 0.1, "next"))


def test_a_task_whose_targets_and_threat_model_do_not_fit_is_refused():
    images, labels = pictures(2)
    with pytest.raises(ValueError, match=r"no targets are given for threat model L2:1\.0:target=3"):
        Task(images, labels, ["a", "b"], ThreatModel("L2", 1, 3), 0, "test")
    with pytest.raises(ValueError, match=r"targets are given for threat model L2:1\.0:"):
        Task(images, labels, ["a", "b"], ThreatModel("L2", 1), 0, "test", labels + 1)
    with pytest.raises(ValueError, match="sample b has its target as label"):
        Task(images, torch.tensor([0, 3]), ["a", "b"], ThreatModel("L2", 1, 3), 0, "test", torch.tensor([3, 3]))


# Judging


def test_the_verifier_counts_the_target_alone_and_its_margin_is_negative_there():
    images, labels = pictures(30)
    threat = ThreatModel("Linf", 1.0, "2")
    keep = labels != 2
    images, labels = images[keep], labels[keep]
    every = torch.arange(len(labels))
    verify = Verifier(brightest(), images, labels, [str(i) for i in every], threat, seed=0)
    towards_it, elsewhere = images.clone(), images.clone()
    towards_it[:, 0, 0, 2] = 1
    wrong = (labels + 1 + (labels == 1).long()) % CLASSES  # neither the label nor 2
    elsewhere.view(len(every), -1)[every, wrong] = 1
    assert verify(towards_it, every, every).success.all()
    assert not verify(elsewhere, every, every).success.any()
    measured = verify.measure(towards_it, every)
    assert (measured.margin < 0).all()
    assert (measured.wrong_share == 1).all()
    measured = verify.measure(elsewhere, every)
    torch.testing.assert_close(measured.margin, 1 - images[:, 0, 0, 2])
    assert (measured.wrong_share == 0).all()


def test_a_sample_of_the_target_s_class_is_measured_as_without_a_target():
    images, labels = pictures(30)
    every = torch.arange(30)
    ids = [str(i) for i in every]
    one = Verifier(brightest(), images, labels, ids, ThreatModel("L2", 1), seed=0).measure(images, every)
    other = Verifier(brightest(), images, labels, ids, ThreatModel("L2", 1, "2"), seed=0).measure(images, every)
    own = labels == 2
    assert own.any()
    assert torch.equal(one.margin[own], other.margin[own])
    assert (other.wrong_share == 0).all()


def test_what_robust_means_towards_a_class_is_one_sentence():
    assert target_meaning("Linf:8/255") == ""
    assert re.fullmatch(
        r"[^.]*classified correctly clean and not moved to class 3[^.]*\.", target_meaning("L2:1.0:target=3")
    )
    assert "the class after its label" in target_meaning("L2:1.0:target=next")
    assert "drawn for it" in target_meaning("L2:1.0:target=random")


# Attacks of libraries


@pytest.mark.parametrize(
    "text",
    [
        "torchattacks.PGD(steps=20)",
        "torchattacks.FAB(steps=10)",
        "art.ProjectedGradientDescent(steps=20)",
        "art.AutoProjectedGradientDescent(steps=20)",
    ],
)
def test_an_attack_of_a_library_is_led_to_each_sample_s_own_target(text):
    images, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in pictures(30))
    model = brightest(scale=10.0, dtype=torch.float32)
    exact = smallest(images.double(), (labels + 1) % CLASSES, "Linf")
    threat = ThreatModel("Linf", float(exact.median()), "next")
    targets = threat.targets(labels, CLASSES)
    points, forwards, _ = run_whole(built(text, threat), model, images, labels, 0, targets)
    assert forwards > 0
    ids = [str(i) for i in range(30)]
    every = torch.arange(30)
    found = Verifier(model, images, labels, ids, threat, seed=0)(points, every, every).success
    assert not found[exact > 1.01 * threat.eps].any()
    assert found.sum() >= 0.9 * (exact <= threat.eps).sum()
    assert torch.equal(model(points[found]).argmax(1), targets[found])


def test_a_library_s_attack_that_needs_more_classes_says_that_towards_a_class_there_are_two():
    images, labels = pictures(2)
    with pytest.raises(ValueError, match="towards a class, any model has two"):
        run_whole(built("torchattacks.APGDT", ThreatModel("Linf", 0.1, 3)), brightest(), images, labels, 0, labels + 1)


def test_a_model_seen_towards_a_class_is_in_the_mode_of_the_model():
    assert not Towards(brightest().eval(), 1).training
    assert Towards(brightest().train(), 1).training


# Runs


ATTACKS_RUN = (
    "pgd(steps=10),cw(steps=20, search_steps=3),torchattacks.PGD(steps=10),art.ProjectedGradientDescent(steps=10)"
)
RUN = ("run", "--model=model.py:build", "--data=data.npz", "--out=out")


def samples(root):
    """The samples of the latest run, by attack and threat model."""
    run = load_run(root / "out")
    return {
        (cell.info.attack, cell.info.threat): run.result(cell, adversarial=True).blocks[0].samples
        for cell in run.plan.cells
    }


@pytest.mark.parametrize("target", ["3", "next", "random"])
def test_a_run_towards_a_class_is_stored_shown_and_verified_again(project, call, target):
    threat = f"Linf:0.25:target={target}"
    done = call(*RUN, f"--attacks={ATTACKS_RUN}", f"--threat={threat}", f"--threat=L2:1.0:target={target}")
    assert done.returncode == 0, done.stderr
    assert "Targeted: robust means" in done.stdout
    found = samples(project)
    assert {name for name, _ in found} == {
        "pgd(steps=10)", "cw(search_steps=3, steps=20)", "torchattacks.PGD(steps=10)", "art.ProjectedGradientDescent(steps=10)",
    }  # fmt: skip
    for (_, text), one in found.items():
        targets = ThreatModel.parse(text).targets(torch.from_numpy(one.label), 10, one.id.tolist()).numpy()
        moved = ~np.isnan(one.distance)
        assert 3 <= moved.sum() < len(one)
        np.testing.assert_array_equal(one.prediction[moved], targets[moved])
        assert (one.margin[moved] < 0).all()
        assert not moved[targets == one.label].any()
        np.testing.assert_array_equal(one.forwards[targets == one.label], 0)
        np.testing.assert_array_equal(one.robust[targets == one.label], one.correct[targets == one.label])
    assert f"## Linf:0.25\\:target={target}\n" in (project / "out/leaderboard.md").read_text()
    assert "Targeted: robust means" in (project / "out/leaderboard.md").read_text()
    assert set(read_cells(project / "out/cells.csv")["threat"]) == {threat, f"L2:1.0:target={target}"}
    checked = call("verify", "out")
    assert checked.returncode == 0, checked.stdout
    assert "0 failures" in checked.stdout
    again = call(*RUN, f"--attacks={ATTACKS_RUN}", f"--threat={threat}", f"--threat=L2:1.0:target={target}")
    assert again.stdout.count("(stored)") + again.stderr.count("(stored)") == len(found)


def test_a_randomised_model_is_moved_where_most_draws_say_the_target(project, call):
    assert call(*RUN, "--attacks=pgd(steps=20)", "--threat=Linf:0.3:target=3", "--defense=input_noise").returncode == 0
    (one,) = samples(project).values()
    moved = one.correct & ~one.robust
    assert moved.any()
    assert (one.prediction[moved] == 3).mean() > 0.9
    assert (one.wrong_share[one.robust & np.isnan(one.distance)] < 0.5).all()
    assert (one.label[moved] != 3).all()


def test_targeted_and_untargeted_results_share_a_folder_and_no_comparison(project, call):
    threats = ("Linf:0.1", "Linf:0.1:target=3", "Linf:0.1:target=4")
    assert call(*RUN, "--attacks=pgd(steps=5)", *(f"--threat={text}" for text in threats)).returncode == 0
    found = samples(project)
    robust = [found["pgd(steps=5)", text].robust.mean() for text in threats]
    assert robust[0] < min(robust[1:])
    table = build_rows(load_run(project / "out").results())
    assert [row.threat for row in table] == list(threats)
    assert len({row.comparison for row in table}) == 3
    assert [row.rank_interval for row in table] == [(1, 1)] * 3


def test_an_example_that_is_not_of_its_target_fails_verification(project, call):
    assert call(*RUN, "--attacks=pgd(steps=10)", "--threat=Linf:0.25:target=3").returncode == 0
    run = load_run(project / "out")
    ((key, _),) = run.keys(run.plan.cells[0])
    path, held = run.store.path(key), run.store.read(key, adversarial=True).samples
    row = int(np.flatnonzero(~np.isnan(held.distance))[0])
    clean = np.load(project / "data.npz")["images"][row]
    # As far on the other side: valid, at the stored distance, and still no 3.
    mirrored = np.clip(2 * clean - held.adversarial[row], 0, 1)
    assert abs(np.abs(mirrored - clean).max() - held.distance[row]) < 1e-6
    table = pq.read_table(path)
    examples = table["adversarial"].to_pylist()
    examples[row] = mirrored.astype(np.float32).tobytes()
    place = table.column_names.index("adversarial")
    table = table.set_column(place, "adversarial", pa.array(examples, table.schema.field("adversarial").type))
    path.unlink()
    pq.write_table(table, path)
    reseal(run.store, key)
    failed = call("verify", "out")
    assert failed.returncode == 1
    assert "the stored example is not classified as its target (Linf:0.25:target=3)" in failed.stdout


def test_a_class_that_no_model_has_is_an_error_that_names_it_and_how_many_there_are(project, call):
    done = call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1:target=10")
    assert done.returncode == 1
    assert re.search(r"target 10 of threat model Linf:0\.1:target=10 .*which has 10: use 0 to 9", done.stderr)
    wrong = call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1:target=ten")
    assert wrong.returncode == 2
    assert "'ten'" in wrong.stderr


def test_the_configuration_names_targets(project, call):
    (project / "gauntlet.toml").write_text(
        'model = "model.py:build"\ndata = "data.npz"\nattacks = "fgsm"\nout = "out"\n'
        'threat = ["Linf:0.1", "Linf:1/10:target=next"]\n'
        '[[expect]]\nthreat = "Linf:0.1:target=next"\nmin_robust = 1.0\n'
    )
    done = call("run")
    assert done.returncode == 1
    (problem,) = [line for line in done.stderr.splitlines() if line.startswith("PROBLEM")]
    assert "Linf:0.1:target=next" in problem


def test_a_plan_without_targets_is_written_as_before_there_were_any(project, call):
    assert call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1").returncode == 0
    assert '"target"' not in (load_run(project / "out").folder / "run.json").read_text()


def test_evaluate_takes_a_target(tiny):
    images, labels = torch.from_numpy(tiny.IMAGES[:40]), torch.from_numpy(tiny.LABELS[:40])
    means = torch.stack([images[labels == label].mean(0).flatten() for label in range(10)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    model[1].weight.data, model[1].bias.data = 2 * means, -means.square().sum(1)
    result = gauntlet.evaluate(model, images, labels, threat="Linf:0.3:target=3", attacks="pgd(steps=10)")
    moved = result.correct & ~result.robust
    assert 5 < moved.sum() < 40
    assert (model(result.adversarials[moved]).argmax(1) == 3).all()
    assert result.robust[result.correct & (labels == 3)].all()
    assert "not moved to class 3" in repr(result)
    with pytest.raises(ValueError, match=r"target 12 .*has 10"):
        gauntlet.evaluate(model, images, labels, threat="Linf:0.3:target=12", attacks="fgsm")
