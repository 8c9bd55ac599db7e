"""`gauntlet.evaluate`: whatever a model returns and data come in, the result is consistent and nothing is touched."""

from __future__ import annotations

import copy
import pickle
import random
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gauntlet
from gauntlet.attacks.ops.random import active_draws
from gauntlet.bench.run.evaluation import CellFailedError

N, CLASSES = 40, 3
ATTACKS = "fgsm, pgd(steps=3)"
THREAT = "Linf:0.05"


@pytest.fixture(scope="module")
def images():
    return torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round(decimals=2)


@pytest.fixture
def model(images):
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.BatchNorm1d(12), nn.Linear(12, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        model.eval()
        model[4].bias -= model(images).mean(0)  # so that every class is predicted
    return model


@pytest.fixture
def labels(images, model):
    """Right but for the first five."""
    labels = model(images).argmax(1)
    labels[:5] = (labels[:5] + 1) % CLASSES
    return labels


class Wrapped(nn.Module):
    def __init__(self, model, pack):
        super().__init__()
        self.model, self.pack = model, pack
        self.eval()

    def forward(self, x):
        return self.pack(self.model(x))


class Counter:
    """A hook that counts the images of forward and backward passes."""

    def __init__(self, model):
        self.forwards = self.backwards = 0
        model.register_forward_hook(self.forward)

    def forward(self, module, inputs, output):
        self.forwards += len(output)
        if output.requires_grad:
            output.register_hook(self.backward)

    def backward(self, gradient):
        self.backwards += len(gradient)


def same(one, other):
    assert torch.equal(one.robust, other.robust)
    assert torch.equal(one.correct, other.correct)
    assert torch.equal(one.adversarials, other.adversarials)
    assert torch.equal(one.distance, other.distance)


@pytest.fixture
def result(model, images, labels):
    return gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=ATTACKS)


@pytest.mark.parametrize(
    "pack",
    [
        lambda logits: (logits, None),
        lambda logits: [logits],
        lambda logits: {"logits": logits, "loss": torch.zeros(())},
        lambda logits: {"out": logits},
        lambda logits: SimpleNamespace(logits=logits),
        lambda logits: namedtuple("Output", "loss logits")(None, logits),
    ],
    ids=["tuple", "list", "dict with logits", "dict of one", "object", "namedtuple"],
)
def test_logits_are_found_in_what_models_return(pack, model, images, labels, result):
    same(gauntlet.evaluate(Wrapped(model, pack), images, labels, threat=THREAT, attacks=ATTACKS), result)


def test_data_may_be_arrays_a_dataset_a_loader_or_ours(model, images, labels, result):
    dataset = TensorDataset(images, labels)
    sources = [
        (images.numpy(), labels.numpy()),
        (images.squeeze(1), labels),
        (images, labels.tolist()),
        (dataset,),
        (DataLoader(dataset, batch_size=7),),
    ]
    for source in sources:
        same(gauntlet.evaluate(model, *source, threat=THREAT, attacks=ATTACKS), result)
    digits = gauntlet.load_data("digits", samples="20")
    zoo = gauntlet.load_model("cnn.standard_digits").module
    assert len(gauntlet.evaluate(zoo, digits, threat="Linf:0.15", attacks="fgsm").robust) == 20


def test_bytes_are_images_too(model, labels):
    images = torch.randint(256, (N, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = gauntlet.evaluate(model, images, labels, threat=THREAT, attacks="fgsm")
    same(gauntlet.evaluate(model, images.float() / 255, labels, threat=THREAT, attacks="fgsm"), whole)


def test_the_fields_of_a_result_fit_one_another(model, images, labels, result):
    found = result.distance.isfinite()
    assert torch.equal(result.correct, model(images).argmax(1) == labels)
    assert torch.equal(result.correct & ~result.robust, found)
    assert 0 < found.sum() < result.correct.sum() < N
    assert torch.equal(result.adversarials[~found], images[~found])
    inside = (result.adversarials[found].double() - images[found].double()).flatten(1).abs().amax(1)
    assert torch.equal(inside, result.distance[found])
    assert (inside <= result.threat.eps + 2**-23).all()
    assert 0 <= result.adversarials.min() <= result.adversarials.max() <= 1
    assert (model(result.adversarials[found]).argmax(1) != labels[found]).all()
    assert result.clean_accuracy == result.correct.double().mean() == 35 / N
    assert result.robust_accuracy == result.robust.double().mean()
    for accuracy in (result.clean_accuracy, result.robust_accuracy):
        low, high = accuracy.interval
        assert low < accuracy < high
        assert accuracy.n == N
    assert (result.per_attack["robust_accuracy"] >= result.robust_accuracy).all()
    assert (result.per_attack["n"] == N).all()
    assert result.per_attack["attack"].tolist() == ["fgsm", "pgd(steps=3)"]


def test_the_example_that_is_kept_is_the_closest_of_all_attacks(model, images, labels):
    both = gauntlet.evaluate(
        model, images, labels, threat="L2:0.3", attacks="pgd(steps=5), cw(search_steps=4, steps=40)"
    )
    one = gauntlet.evaluate(model, images, labels, threat="L2:0.3", attacks="pgd(steps=5)")
    assert (both.distance <= one.distance).all()
    assert (both.distance < one.distance).any()
    assert (both.distance[both.distance.isfinite()] <= 0.3 + 1e-6).all()
    assert torch.equal(both.distance.isfinite(), both.correct & ~both.robust)


def test_the_text_of_a_result_says_what_was_measured(result):
    text = repr(result)
    for part in (f"{100 * result.robust_accuracy:.1f} %", "upper bound", "n=40", "pgd(steps=3)", THREAT):
        assert part in text


def test_a_result_can_be_copied_and_pickled(result):
    for made in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        same(made, result)
        assert made.robust_accuracy.interval == result.robust_accuracy.interval
        assert repr(made) == repr(result)


def test_comparing_results_is_no_error(result):
    other = copy.copy(result)
    assert (result == result, result == other) == (True, False)


def test_settings_in_an_attacks_name_are_used_and_shown(model, images, labels):
    result = gauntlet.evaluate(
        model, images, labels, threat="Linf:1e-6", attacks=["pgd(steps=2, restarts=3)", "pgd(steps=4, loss=cw)"]
    )
    assert result.per_attack["forwards_per_sample"].tolist() == [9 * 35 / N, 5 * 35 / N]
    assert result.per_attack["backwards_per_sample"].tolist() == [6 * 35 / N, 4 * 35 / N]
    assert "restarts=3" in result.per_attack["settings"][0]


def test_the_standard_suite_is_run_when_nothing_else_is_asked(model, images, labels):
    result = gauntlet.evaluate(model, images, labels)
    assert result.per_attack["attack"].tolist() == ["fgsm", "pgd", "pgd-cw"]
    assert str(result.threat) == "Linf:8/255"


def test_suites_and_single_attacks_may_be_asked_for_together(model, images, labels):
    result = gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=["quick", "pgd(steps=3)"])
    assert result.per_attack["attack"].tolist() == ["fgsm", "pgd-10", "pgd(steps=3)"]
    assert result.robust_accuracy <= result.per_attack["robust_accuracy"].min()


def test_samples_of_several_blocks_come_back_in_the_order_of_the_images(model, images, labels):
    many, targets = images.repeat(6, 1, 1, 1), labels.repeat(6)
    result = gauntlet.evaluate(model, many, targets, threat=THREAT, attacks="fgsm")
    assert result.robust_accuracy.n == 6 * N
    assert torch.equal(result.correct, labels.eq(model(images).argmax(1)).repeat(6))
    assert torch.equal(result.robust, result.robust[:N].repeat(6))  # FGSM draws nothing: copies end alike


def test_numbers_of_numpy_serve_as_eps(model, images, labels, result):
    threat = gauntlet.ThreatModel("Linf", np.float64(0.05))
    same(gauntlet.evaluate(model, images, labels, threat=threat, attacks=ATTACKS), result)


def test_the_batch_size_does_not_change_the_result(model, images, labels, result):
    model = copy.deepcopy(model).double()
    whole = gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=ATTACKS)
    for batch_size in (1, 7):
        part = gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=ATTACKS, batch_size=batch_size)
        assert torch.equal(part.robust, whole.robust)
        assert part.per_attack["forwards_per_sample"].equals(whole.per_attack["forwards_per_sample"])


def test_one_sample_is_enough(model, images, labels):
    assert gauntlet.evaluate(model, images[:1], labels[:1], threat=THREAT, attacks="fgsm").clean_accuracy == 0
    assert gauntlet.evaluate(model, images[5:6], labels[5:6], threat=THREAT, attacks="fgsm").clean_accuracy == 1


def test_samples_that_are_wrong_when_clean_cost_the_attack_nothing(model, images, labels):
    wrong = (model(images).argmax(1) + 1) % CLASSES
    counter = Counter(model)
    result = gauntlet.evaluate(model, images, wrong, threat="L2:1", attacks="pgd, cw", checks="none")
    assert result.clean_accuracy == result.robust_accuracy == 0
    assert (result.per_attack[["forwards_per_sample", "backwards_per_sample"]] == 0).all(axis=None)
    assert counter.backwards == 0
    assert result.distance.isinf().all()


def test_backward_passes_are_those_that_a_hook_on_the_model_sees(model, images, labels):
    counter = Counter(model)
    result = gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=ATTACKS, checks="none")
    assert round(N * result.per_attack["backwards_per_sample"].sum()) == counter.backwards > 0


def test_a_store_answers_the_second_time_without_attacking(model, images, labels, result, tmp_path):
    ask = {"threat": THREAT, "attacks": ATTACKS, "store": tmp_path / "results"}
    counter = Counter(model)
    first = gauntlet.evaluate(model, images, labels, **ask)
    forwards, backwards = counter.forwards, counter.backwards
    again = gauntlet.evaluate(model, images, labels, **ask)
    same(first, result)
    same(again, result)
    assert counter.backwards == backwards > 0
    # What is left: the checks of the model, and the clean logits that are compared with the stored ones.
    assert counter.forwards - forwards <= 5 * 64
    assert again.per_attack["seconds"].equals(first.per_attack["seconds"])


@pytest.mark.parametrize("change", ["weights", "labels", "image", "threat", "seed", "attack"])
def test_a_store_is_asked_again_only_where_nothing_changed(change, model, images, labels, tmp_path):
    ask = {"threat": THREAT, "attacks": "pgd(steps=3)", "store": tmp_path, "seed": 0}
    gauntlet.evaluate(model, images, labels, **ask)
    images, labels = images.clone(), labels.clone()
    if change == "weights":
        with torch.no_grad():
            model[1].bias += 1e-3
    elif change == "labels":
        labels[-1] = (labels[-1] + 1) % CLASSES
    elif change == "image":
        images[-1, 0, 0, 0] = 1 - images[-1, 0, 0, 0]
    else:
        ask |= {"threat": {"threat": "Linf:0.06"}, "seed": {"seed": 1}, "attack": {"attacks": "pgd(steps=4)"}}[change]
    counter = Counter(model)
    gauntlet.evaluate(model, images, labels, **ask)
    assert counter.backwards > 0


def test_a_failed_attack_names_itself_and_keeps_what_was_computed(model, images, labels, tmp_path):
    class Fragile(nn.Module):
        broken = True

        def __init__(self):
            super().__init__()
            self.inner = model
            self.eval()

        def forward(self, x):
            if self.broken and x.requires_grad:
                raise RuntimeError("the disk of the user is on fire")
            return self.inner(x)

    fragile = Fragile()
    ask = {"threat": THREAT, "attacks": "fgsm", "store": tmp_path}
    with pytest.raises(CellFailedError, match="'fgsm' failed: RuntimeError: the disk of the user is on fire"):
        gauntlet.evaluate(fragile, images, labels, **ask)
    fragile.broken = False
    assert gauntlet.evaluate(fragile, images, labels, **ask).clean_accuracy == 35 / N


class Rounding(nn.Module):
    """Not differentiable: its gradient is zero everywhere."""

    def forward(self, x):
        return (x * 8).round() / 8


class Darker(nn.Module):
    def forward(self, x):
        return 0.9 * x


class KeyedNoise(nn.Module):
    def forward(self, x):
        draws = active_draws()
        noise = torch.randn_like(x) if draws is None else draws.normal(x.shape[1:], tag=200, dtype=x.dtype)
        return (x + 0.05 * noise).clamp(0, 1)


@pytest.mark.parametrize(
    ("defense", "flags"),
    [
        # Three steps find too few of the examples that are planted behind it.
        (Rounding, {"non-differentiable-defense", "planted-example"}),
        (Darker, set()),
        (KeyedNoise, {"randomised-defense"}),
    ],
)
def test_a_defense_given_as_a_module_is_measured_not_believed(defense, flags, model, images, labels):
    result = gauntlet.evaluate(model, images, labels, threat=THREAT, attacks="pgd(steps=3)", defense=defense())
    assert {flag.name for flag in result.flags} == flags
    assert result.robust_accuracy < result.clean_accuracy
    assert torch.equal(result.distance.isfinite(), result.correct & ~result.robust)


def test_a_randomised_defense_gives_the_same_result_twice(model, images, labels):
    ask = {"threat": THREAT, "attacks": "pgd(steps=12)", "defense": KeyedNoise()}
    first = gauntlet.evaluate(model, images, labels, **ask)
    torch.manual_seed(99)
    same(gauntlet.evaluate(model, images, labels, **ask), first)


def test_randomised_defenses_are_not_broken_by_distant_minimum_norm_examples(model, images, labels):
    result = gauntlet.evaluate(
        model,
        images,
        labels,
        threat="L2:0.01",
        attacks="cw(search_steps=3, steps=20)",
        defense="input_noise(sigma=0.01)",
    )
    found = result.distance.isfinite()
    assert torch.equal(found, result.correct & ~result.robust)
    assert (result.distance[found] <= 0.01 + 1e-6).all()


def test_a_registered_defense_is_named_with_settings(model, images, labels):
    result = gauntlet.evaluate(
        model, images, labels, threat=THREAT, attacks="pgd(steps=3)", defense="bit_depth(bits=3)"
    )
    assert "non-differentiable-defense" in {flag.name for flag in result.flags}


def test_a_model_that_returns_probabilities_is_flagged(model, images, labels):
    soft = nn.Sequential(model, nn.Softmax(1)).eval()
    flags = gauntlet.evaluate(soft, images, labels, threat=THREAT, attacks="fgsm").flags
    assert [(flag.name, flag.severity) for flag in flags] == [("probabilities", "block")]


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda model: model.train(), r"training mode.*model\.eval\(\)"),
        (lambda model: nn.Sequential(model, nn.Dropout()).eval().append(nn.Dropout()), "3 is in training mode|2 is in"),
        (lambda model: Wrapped(model, lambda logits: logits / 0 * 0), "NaN or infinite"),
        (lambda model: Wrapped(model, lambda logits: logits[:, None]), r"returns shape \(40, 1, 3\)"),
        (lambda model: Wrapped(model, lambda logits: logits[:-1]), "for 40 images"),
        (lambda model: Wrapped(model, lambda logits: logits[:, :2]), "2 outputs.*3 classes"),
        (lambda model: Wrapped(model, lambda logits: logits.mean()), "returns shape"),
        (lambda model: Wrapped(model, lambda logits: None), "no logits are found"),
        (lambda model: Wrapped(model, lambda logits: {}), "no logits are found"),
        (lambda model: nn.Sequential(nn.Linear(5, 3)).eval(), r"fails on images of shape \(40, 1, 4, 4\)"),
        (lambda model: lambda x: model(x), "torch.nn.Module"),
    ],
)
def test_a_model_that_cannot_be_evaluated_is_refused_with_the_way_out(wrap, match, model, images, labels):
    with pytest.raises(ValueError, match=match):
        gauntlet.evaluate(wrap(model), images, labels, threat=THREAT, attacks="fgsm")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"threat": "Linf"}, ValueError, "NORM:EPS"),
        ({"threat": "L1:1"}, ValueError, "L1"),
        ({"attacks": "pdg"}, LookupError, "did you mean pgd"),
        ({"attacks": "pgd(stepz=3)"}, ValueError, "stepz"),
        ({"attacks": ()}, ValueError, "attack"),
        ({"attacks": "cw"}, ValueError, "not for Linf"),
        ({"defense": "jepg"}, LookupError, "did you mean jpeg"),
        ({"device": "cuda:77"}, ValueError, "device"),
        ({"batch_size": 0}, (ValueError, CellFailedError), "batch_size=0"),
        ({"batch_size": -1}, (ValueError, CellFailedError), "batch_size=-1"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, error, match, model, images, labels):
    with pytest.raises(error, match=match):
        gauntlet.evaluate(model, images, labels, **{"threat": THREAT, "attacks": "fgsm"} | change)


def test_bad_data_are_refused_by_name(model, images, labels):
    for bad, targets, match in (
        (images * 255, labels, "divide by 255"),
        (images, labels[:-1], "40 images and 39 labels"),
        (images, None, "labels are missing"),
        (images.flatten(1), labels, "shape"),
        (images[:0], labels[:0], "no samples"),
    ):
        with pytest.raises(ValueError, match=match):
            gauntlet.evaluate(model, bad, targets, threat=THREAT, attacks="fgsm")


def states(model):
    return (
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()],
        [module.training for module in model.modules()],
        [tensor.clone() for tensor in model.state_dict().values()],
    )


@pytest.mark.parametrize(
    "attacks", ["pgd(steps=2)", "torchattacks.APGD(steps=5)", "art.ProjectedGradientDescent(steps=3)"]
)
def test_model_and_generators_are_left_as_they_were(attacks, model, images, labels):
    model[1].weight.requires_grad_(False)
    model[4].bias.grad = torch.full((CLASSES,), 7.0)
    before = states(model)
    kept = images.clone()
    seeds = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=attacks, defense="input_noise")
    after = states(model)
    assert before[0] == after[0]
    assert before[2] == after[2]
    for one, other in zip([*before[1], *before[3]], [*after[1], *after[3]], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert torch.equal(images, kept)
    assert torch.equal(torch.random.get_rng_state(), seeds[0])
    assert random.getstate() == seeds[1]
    assert (np.random.get_state()[1] == seeds[2]).all()
    assert torch.is_grad_enabled()


def test_a_model_that_fails_half_way_is_left_as_it_was(model, images, labels):
    before = torch.random.get_rng_state()
    fragile = Wrapped(model, lambda logits: logits if len(logits) != 35 else logits.missing)
    with pytest.raises(CellFailedError, match="missing"):
        gauntlet.evaluate(fragile, images, labels, threat=THREAT, attacks="fgsm")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_evaluation_works_inside_no_grad(model, images, labels, result):
    with torch.no_grad():
        same(gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=ATTACKS), result)


def test_a_model_in_float64_is_attacked_in_float64(model, images, labels):
    double = gauntlet.evaluate(model.double(), images.double(), labels, threat=THREAT, attacks="fgsm")
    assert double.adversarials.dtype == torch.float64
    assert double.distance[double.distance.isfinite()].max() <= 0.05 + 1e-12


def test_nothing_is_printed(model, images, labels, capfd):
    gauntlet.evaluate(model, images, labels, threat=THREAT, attacks=f"{ATTACKS}, torchattacks.PGD(steps=2)")
    assert capfd.readouterr() == ("", "")
