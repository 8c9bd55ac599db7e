"""Proof of strength: what is known to be breakable is found, and models that fool a naive attack do not fool the cascades."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
import solving
from builders import Wrapped, linear, network, slow_unless, zoo_digits
from gauntlet.attacks.ops.norms import limit
from gauntlet.attacks.ops.random import active_draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.views.backward_modes import backward_mode
from gauntlet.bench.run.evaluation import CellFailedError
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.loop import fit
from gauntlet.leaderboard.results.store import Store

LINF = ThreatModel("Linf", 0.15)
CASCADES = ["gauntlet", "gauntlet:fast"]


def outcomes(text, model, images, labels, threat, **options):
    """The outcome of each sample, in their order, of a classifier whose logits of the images are known."""
    with torch.no_grad():
        logits = model(images)
    known = {"clean_logits": logits, "classes": logits.shape[1], "purpose": text}
    return solving.outcomes(text, model, images, labels, threat, **known, **options)


def broken(text, model, images, labels, threat, **options):
    """Bool (N,), a verified example inside the ball."""
    found = outcomes(text, model, images, labels, threat, **options)
    points = torch.stack([images[i] if one.adversarial is None else one.adversarial for i, one in enumerate(found)])
    wrong = model(points).argmax(1) != labels
    assert wrong.tolist() == [one.adversarial is not None for one in found]
    norms = {"Linf": torch.inf, "L2": 2, "L1": 1}
    size = torch.linalg.vector_norm((points - images).double().flatten(1), ord=norms[threat.norm], dim=1)
    return wrong & (size <= limit(threat))


# Planted examples: a linear model, of which a closed form says who can be broken.

PLANTED = {"Linf": ThreatModel("Linf", 0.15), "L2": ThreatModel("L2", 0.6), "L1": ThreatModel("L1", 0.35)}


def planted(norm, decoys, *, saturated=False, seed=0):
    """A linear model of class 0, decoys that are near to it everywhere and reach it nowhere, and a hidden last class that is
    far behind when clean and, along one direction, ahead within the ball for half of the images."""
    threat = PLANTED[norm]
    generator = torch.Generator().manual_seed(seed)
    # Only in Linf does the box bite: elsewhere the reach of the ball is the dual norm.
    spread = {"Linf": 1.0, "L2": 0.75, "L1": 0.02}[norm]
    images = 0.5 + spread * (torch.rand(60, 1, 8, 8, generator=generator) - 0.5)
    images = images.round() if saturated else images
    signs = 1 - 2 * torch.randint(0, 2, (64,), generator=generator)
    hidden = signs * (1 + torch.rand(64, generator=generator))
    weight = torch.cat([torch.zeros(1, 64), torch.randn(decoys, 64, generator=generator), hidden[None]])
    gain = reach(weight, images, threat)
    # All images together: a decoy's best logit is below 0, half of the hidden class's are above, its clean ones below -4.
    weight[1:-1] *= 0.3 / gain[:, 1:-1].amax(0)[:, None]
    weight[-1] *= 6 / gain[:, -1].median()
    gain, moved = reach(weight, images, threat), images.flatten(1) @ weight.T
    offset = -(moved + gain).amax(0) - 0.05
    offset[0], offset[-1] = 0, -(moved + gain)[:, -1].median()
    model = linear(weight, offset, dtype=torch.float32)
    images = images[model(images).argmax(1) == 0]
    return model, images, torch.zeros(len(images), dtype=torch.int64), threat


def reach(weight, images, threat):
    """By how much the ball, inside the box for Linf, raises each of the linear forms (K, D): (N, K)."""
    if threat.norm != "Linf":
        dual = torch.linalg.vector_norm(weight, ord=2 if threat.norm == "L2" else torch.inf, dim=1)
        return (threat.eps * dual).expand(len(images), -1)
    x = images.flatten(1)
    up, down = (1 - x).clamp_max(threat.eps), x.clamp_max(threat.eps)
    return up @ weight.clamp_min(0).T + down @ weight.clamp_max(0).neg().T


def slack(model, images, threat):
    """By how much the best perturbation brings another logit above the first, (N,), as a share of what the ball gives."""
    weight, x = model[1].weight.double(), images.double()
    gain = reach(weight, x, threat)[:, 1:]
    best = (x.flatten(1) @ weight.T + model[1].bias)[:, 1:] + gain
    return best.amax(1) / gain[:, -1]


def assert_exactly_the_breakable(found, margin, hair):
    assert 5 < (margin > hair).sum() < len(margin) - 10, "the case must have both"
    assert not (found & (margin < -1e-6)).any()
    assert not (~found & (margin > hair)).any()


# `gauntlet:fast` has the stages that find the direction, with smaller budgets, and is run in every norm.
@pytest.mark.parametrize(
    ("text", "norm"),
    [
        pytest.param(text, norm, marks=[pytest.mark.slow] if text == "gauntlet" and norm != "Linf" else [])
        for norm in PLANTED
        for text in (
            "gauntlet",
            "gauntlet:fast",
            "autoattack(steps=20, queries=100)",
            "apgd-t(steps=20)",
            "fab-t(steps=20, stop_inside=True)",
        )
    ],
)
def test_a_hidden_direction_behind_decoys_is_found_wherever_it_reaches_the_boundary(text, norm):
    model, images, labels, threat = planted(norm, decoys=3)
    margin = slack(model, images, threat)
    assert_exactly_the_breakable(broken(text, model, images, labels, threat), margin, 0.01)


@pytest.mark.parametrize("text", ["pgd", "pgd(loss=cw)", "apgd(loss=cw)", "square(queries=500)"])
def test_the_decoys_do_hide_the_direction_from_attacks_without_target(text):
    model, images, labels, threat = planted("Linf", decoys=3)
    breakable = slack(model, images, threat) > 0.01
    assert (~broken(text, model, images, labels, threat) & breakable).sum() >= 5


@pytest.mark.parametrize(
    ("text", "norm", "hair"),
    [
        ("pgd", "Linf", 0.01),
        ("pgd", "L2", 0.02),
        ("pgd", "L1", 0.05),
        ("apgd", "Linf", 0.01),
        ("apgd", "L2", 0.01),
        ("apgd", "L1", 0.01),
        ("apgd-t(steps=20)", "Linf", 0.01),
        ("apgd-t(steps=20)", "L2", 0.01),
        ("fab-t(steps=20, stop_inside=True)", "Linf", 0.01),
        ("fab-t(steps=20, stop_inside=True)", "L2", 0.01),
        ("square(queries=2000)", "Linf", 0.1),
        # Moves of whole squares cannot follow single pixels: on the sphere that costs more than in the cube.
        slow_unless(False, "square(queries=1500)", "L2", 0.3),
    ],
)
def test_a_single_rule_finds_a_direction_that_nothing_hides(text, norm, hair):
    model, images, labels, threat = planted(norm, decoys=0)
    margin = slack(model, images, threat)
    assert_exactly_the_breakable(broken(text, model, images, labels, threat), margin, hair)


def test_the_minimum_norm_search_does_not_lose_a_sample_to_rounding():
    model, images, labels, threat = planted("Linf", decoys=0)
    found = outcomes("fab-t(steps=20)", model, images, labels, threat)
    # Every sample can be broken somewhere in the box.
    assert all(one.adversarial is not None for one in found)


@pytest.mark.parametrize("text", ["gauntlet:fast", "apgd", "apgd-t(steps=20)", "fab-t(steps=20, stop_inside=True)"])
def test_images_of_exact_zeros_and_ones_are_broken_wherever_the_box_lets_them(text):
    model, images, labels, threat = planted("Linf", 0 if text == "apgd" else 3, saturated=True)
    assert ((images == 0) | (images == 1)).all()
    assert_exactly_the_breakable(broken(text, model, images, labels, threat), slack(model, images, threat), 0.01)


# Trained networks behind what fools naive attacks.


MASKS = {
    "confident": (None, lambda logits: 1000 * logits),
    "rounded softmax": (None, lambda logits: logits.softmax(1).round(decimals=2)),
    "quantised": (lambda x: (7 * x).round() / 7, lambda logits: logits.round(decimals=1)),
    "detached": (lambda x: x.detach(), None),
    "through numpy": (lambda x: torch.from_numpy(x.detach().numpy().copy()), None),
    "without gradients": (torch.no_grad()(lambda x: (15 * x).round() / 15), None),
}


def masked(model, name):
    return Wrapped(model, *MASKS[name])


@pytest.fixture(scope="module")
def digits():
    """A trained network, and test images that it classifies correctly."""
    return zoo_digits("cnn.standard_digits")


def evaluated(model, images, labels, text, folder, **options):
    """Who is left standing, the flags by name, and the stored statistics of all blocks."""
    options = {"threat": LINF, "device": "cpu", **options}
    result = gauntlet.evaluate(model, images, labels, attacks=text, store=folder, **options)
    records = [Store(folder).read(path.stem) for path in sorted(folder.glob("store/*/*.parquet"))]
    return result, {flag.name for flag in result.flags}, [record.stats for record in records]


@pytest.fixture(scope="module")
def plain(digits, tmp_path_factory):
    """What each cascade makes of the network itself: who is left, flags, statistics."""
    return {text: evaluated(*digits, text, tmp_path_factory.mktemp("plain")) for text in CASCADES}


@pytest.mark.parametrize("text", CASCADES)
def test_a_sound_network_shows_no_sign_of_masked_gradients(plain, text):
    result, flags, stats = plain[text]
    assert flags == set()
    assert sum(one.masked_fallback for one in stats) <= 2
    assert 2 <= result.robust.sum() <= 20


@pytest.mark.parametrize("text", [slow_unless(text == "gauntlet:fast", text) for text in CASCADES])
def test_logits_times_a_thousand_blind_cross_entropy_and_save_one_sample_at_most_from_a_cascade(
    digits, plain, text, tmp_path
):
    model, images, labels = digits
    confident = masked(model, "confident")
    assert broken("pgd", confident, images, labels, LINF).double().mean() < 0.1
    assert broken("pgd", model, images, labels, LINF).double().mean() > 0.7
    result, flags, _ = evaluated(confident, images, labels, text, tmp_path)
    assert result.robust.sum() <= plain[text][0].robust.sum() + 1
    assert "masked-gradients" not in flags, "the margin's gradient is as good as ever"


MASKED = {"rounded softmax": 4, "quantised": 10, "detached": 4}
"""How many samples more than on the network itself may be left of a hundred; eight levels leave less room to attack."""


def assert_few_are_saved(masks, text, digits, plain, folder):
    model, images, labels = digits
    for name in masks:
        blind = masked(model, name)
        result, flags, stats = evaluated(blind, images, labels, text, folder / name)
        assert result.correct.double().mean() > 0.9
        assert "masked-gradients" in flags
        assert sum(one.masked_fallback for one in stats) > len(images) / 4
        assert sum(one.masked_fallback_passes for one in stats) > 0
        assert result.robust.sum() <= plain[text][0].robust.sum() + MASKED[name], name


@pytest.mark.parametrize("name", [slow_unless(False, "rounded softmax"), "quantised", "detached"])
def test_what_has_no_gradient_saves_few_samples_from_the_fast_cascade_and_is_flagged(digits, plain, tmp_path, name):
    assert_few_are_saved([name], "gauntlet:fast", digits, plain, tmp_path)


@pytest.mark.slow
def test_a_rounded_softmax_saves_few_samples_from_the_cascade_and_is_flagged(digits, plain, tmp_path):
    assert_few_are_saved(["rounded softmax"], "gauntlet", digits, plain, tmp_path)


@pytest.mark.slow
def test_other_masks_save_few_samples_from_the_cascade_and_are_flagged(digits, plain, tmp_path):
    assert_few_are_saved(["quantised", "detached"], "gauntlet", digits, plain, tmp_path)


def test_the_masks_do_blind_an_attack_that_trusts_gradients(digits):
    model, images, labels = digits
    for name in ("rounded softmax", "quantised"):
        assert broken("pgd", masked(model, name), images, labels, LINF).double().mean() < 0.1


@pytest.mark.parametrize(
    "name",
    [
        "through numpy",
        slow_unless(False, "without gradients"),
    ],
)
def test_a_network_that_leaves_autograd_is_attacked_by_search(digits, name, tmp_path):
    model, images, labels = (part if isinstance(part, nn.Module) else part[:25] for part in digits)
    result, flags, _ = evaluated(masked(model, name), images, labels, "gauntlet", tmp_path)
    assert "masked-gradients" in flags
    assert result.robust.double().mean() < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn.standard_digits", "cnn.pgd_digits"])
def test_two_hundred_images_of_masked_networks_are_left_no_more_robust_than_those_of_the_networks(name, tmp_path):
    model, images, labels = zoo_digits(name, 200)
    alone, _, _ = evaluated(model, images, labels, "gauntlet", tmp_path / "plain")
    for mask, more in {"confident": 1, **MASKED}.items():
        result, _, _ = evaluated(masked(model, mask), images, labels, "gauntlet", tmp_path / mask)
        assert result.robust.sum() <= alone.robust.sum() + more, mask


class InPlace(nn.Module):
    """A network whose ReLU works in place, and whose result is not taken up."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        flatten, first, _, second = self.network
        hidden = first(flatten(x))
        nn.functional.relu(hidden, inplace=True)
        return second(hidden)


def test_an_in_place_relu_whose_result_is_not_taken_up_is_no_other_network(small):
    network, images, _ = small
    x = images[:5].clone().requires_grad_()
    with backward_mode("leaky", len(x)):
        assert torch.equal(InPlace(network)(x), network(x))


# Models that are no plain function.


class Noise(nn.Module):
    """Noise on the image: keyed by the draws that the caller provides, or from torch's own generator."""

    def __init__(self, keyed):
        super().__init__()
        self.keyed = keyed
        self.eval()

    def forward(self, x):
        draws = active_draws()
        noise = torch.randn_like(x) if draws is None or not self.keyed else draws.normal(x.shape[1:], 200, x.dtype)
        return x + 0.1 * noise


@pytest.mark.parametrize("keyed", [pytest.param(True, id="keyed"), slow_unless(False, False, id="global generator")])
@pytest.mark.parametrize("text", [pytest.param("gauntlet", marks=pytest.mark.slow), "gauntlet:fast"])
def test_a_random_layer_is_judged_by_majority_and_reproducibly(digits, text, keyed):
    model, images, labels = (part if isinstance(part, nn.Module) else part[:30] for part in digits)
    ask = {"threat": LINF, "device": "cpu", "attacks": text, "defense": Noise(keyed)}
    first = gauntlet.evaluate(model, images, labels, **ask)
    torch.manual_seed(77)
    again = gauntlet.evaluate(model, images, labels, **ask)
    assert torch.equal(first.robust, again.robust)
    assert torch.equal(first.adversarials, again.adversarials)
    assert "randomised-defense" in {flag.name for flag in first.flags}
    assert first.robust_accuracy < first.clean_accuracy - 0.3
    # By majority: of fresh draws, most misclassify what is not robust.
    fallen = (first.correct & ~first.robust).nonzero().squeeze(1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        shares = torch.stack(
            [model(Noise(False)(first.adversarials[fallen])).argmax(1) != labels[fallen] for _ in range(100)]
        )
    assert (shares.double().mean(0) > 0.3).all()
    assert shares.double().mean() > 0.6


def noise_off_the_data(x):
    """Noise on pixels that no digit has, nor the mean of two: what is measured on the data does not see it."""
    return x + 0.1 * torch.randn_like(x) * ((32 * x) != (32 * x).round())


def test_a_model_whose_hidden_randomness_undoes_an_example_is_refused_with_the_way_out(digits):
    model, images, labels = digits
    with pytest.raises(CellFailedError, match=r"hidden randomness or state.*adaptive"):
        gauntlet.evaluate(Wrapped(model, noise_off_the_data), images, labels, threat=LINF, attacks="gauntlet:fast")


def test_a_model_that_declares_no_randomness_is_judged_by_majority_where_it_is_measured(digits):
    model, images, labels = (part if isinstance(part, nn.Module) else part[:30] for part in digits)
    found = gauntlet.evaluate(Wrapped(model, Noise(False)), images, labels, threat=LINF, attacks="gauntlet:fast")
    (flag,) = (flag for flag in found.flags if flag.name == "randomised-defense")
    assert "nothing was declared" in flag.message
    assert found.robust_accuracy < found.clean_accuracy - 0.3


def test_a_class_that_is_never_predicted_changes_no_verdict(digits, plain):
    model, images, labels = digits
    never = Wrapped(model, after=nn.ConstantPad1d((0, 1), -1e4))
    result = gauntlet.evaluate(never, images, labels, threat=LINF, attacks="gauntlet:fast", device="cpu")
    assert (result.robust ^ plain["gauntlet:fast"][0].robust).sum() <= 1


def test_a_class_that_is_never_predicted_sends_nobody_through_more_stages():
    model, images, labels = zoo_digits("cnn.pgd_digits", 40)
    never = Wrapped(model, after=nn.ConstantPad1d((0, 1), -1e4))
    passes = [
        sum(one.forwards + one.backwards for one in outcomes("gauntlet:fast", network, images, labels, LINF))
        for network in (model, never)
    ]
    assert passes[1] < 1.2 * passes[0]


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_logit_that_is_no_number_is_refused_by_name(digits, value):
    model, images, labels = digits
    never = Wrapped(model, after=nn.ConstantPad1d((0, 1), value))
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        gauntlet.evaluate(never, images, labels, threat=LINF, attacks="gauntlet", device="cpu")


# Nothing depends on the batch.


@pytest.fixture(scope="module")
def small():
    """A ReLU network 64-16-10 in float64, and digits of which the stages of `gauntlet` break some each."""
    train, test = gauntlet.load_data("digits-train"), gauntlet.load_data("digits")
    model = network(64, 16, 10).train()
    fit(model, train.images, train.labels, RECIPES["standard"], threat=LINF, seed=0)
    model = model.double().eval().requires_grad_(False)
    right = (model(test.images.double()).argmax(1) == test.labels).nonzero().squeeze(1)
    return model, test.images[right].double(), test.labels[right]


def facts(found, ids):
    """All that is known of each sample, by id."""
    return {
        ids[one.sample]: (
            one.stage,
            one.forwards,
            one.backwards,
            one.steps,
            one.masked_fallback,
            one.vanished,
            one.adversarial is not None,
        )
        for one in found
    }


def assert_same_examples(one, other):
    """Outcomes by id."""
    for name, outcome in one.items():
        if outcome.adversarial is not None:
            torch.testing.assert_close(outcome.adversarial, other[name].adversarial, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("text", "mask"), [slow_unless(False, "gauntlet", None), ("gauntlet:fast", "quantised")])
def test_neither_batch_size_nor_order_changes_anything_of_a_cascade(small, text, mask):
    model, images, labels = small
    model = model if mask is None else masked(model, mask)
    chosen = interesting(text, model, images, labels)
    images, labels = images[chosen], labels[chosen]
    ids = [f"digit {i}" for i in chosen.tolist()]

    def run(batch_size, order):
        names = [ids[i] for i in order]
        found = outcomes(text, model, images[order], labels[order], LINF, ids=names, batch_size=batch_size)
        return facts(found, names), {names[one.sample]: one for one in found}

    straight = list(range(len(ids)))
    whole, examples = run(len(ids), straight)
    assert len({one[0] for one in whole.values()}) >= 3
    for batch_size, order in ((1, straight), (7, straight[::-1])):
        one, other = run(batch_size, order)
        assert one == whole
        assert_same_examples(examples, other)


def interesting(text, model, images, labels):
    """Two digits for each stage that breaks any, and two that withstand all, where there are: rows of the images."""
    found = outcomes(text, model, images[:80], labels[:80], LINF)
    stages = sorted({one.stage for one in found})
    picked = [one.sample for stage in stages for one in [one for one in found if one.stage == stage][:2]]
    return torch.tensor(picked)
