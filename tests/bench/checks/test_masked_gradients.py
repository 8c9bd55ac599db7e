"""Checks of the pipeline and its gradients: each fires on a planted fault and is silent on honest models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from builders import Wrapped, network
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks import hidden_masks as masks
from gauntlet.bench.checks import masked_gradients as gradients
from gauntlet.bench.checks import model_outputs as model
from gauntlet.bench.checks.catalog import CHECKS, flags, run_checks
from gauntlet.bench.checks.subject import Subject
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.pipeline.defended_model import DefendedModel, defend
from gauntlet.leaderboard.results.record import EVIDENCE

LINF = ThreatModel("Linf", 0.15)
HONEST = ["cnn.standard_digits", "cnn.trades_digits", "linear"]


def named(name):
    return network(64, 10) if name == "linear" else gauntlet.load_model(name).module


def subject(module, count=48, *, threat=LINF, randomised=False, labels=None, **options):
    data = gauntlet.load_data("digits")
    pipeline = module
    if not isinstance(module, DefendedModel):
        pipeline = DefendedModel(module.eval(), differentiable=True, randomised=randomised).eval()
    images = data.images[:count]
    if labels is None:
        with torch.no_grad():
            labels = data.labels[:count] if not isinstance(module, nn.Sequential) else module(images).argmax(1)
    return Subject(pipeline, images, labels, list(data.ids[:count]), threat, **options)


def defended(name, **settings):
    entry = DEFENSES.get(name)
    return defend(named("cnn.standard_digits"), entry, settings).eval()


def masked(name):
    return subject(getattr(masks, name)(), randomised=name == "noisy_input")


def fired(findings):
    return {finding.check for finding in findings if finding.result == "fired"}


@pytest.mark.parametrize("threat", ["Linf:0.15", "Linf:8/255", "L2:0.8", "L1:4"])
@pytest.mark.parametrize("name", HONEST)
def test_the_cheap_checks_are_silent_on_an_honest_model(name, threat):
    findings = run_checks(subject(named(name), threat=ThreatModel.parse(threat)))
    assert fired(findings) == set()
    assert flags(findings) == ()


@pytest.mark.parametrize("name", gauntlet.list_models("cnn.*_digits"))
def test_the_cheap_checks_are_silent_on_every_model_of_the_zoo(name):
    assert fired(run_checks(subject(named(name), 64))) == set()


HIDDEN = {
    "scaled_logits": {"zero-gradient"},
    "rounded_softmax": {"unavailable-gradients", "zero-gradient"},
    "softmax": {"probabilities"},
    "quantised_input": {"unavailable-gradients", "zero-gradient"},
    "detached_input": {"unavailable-gradients"},
    "noisy_input": {"randomised-model"},
    "optimising": {"optimisation-at-test-time"},
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_in_a_forward_pass_is_noticed(name):
    findings = run_checks(masked(name))
    found = fired(findings)
    assert HIDDEN[name] <= found
    # Rounded probabilities seldom add up to 1: the check of distributions may or may not fire there.
    assert found <= HIDDEN[name] | {"probabilities", "finite-differences"}
    for finding in findings:
        assert finding.flag is None or finding.flag.name == finding.check


def test_every_mask_is_put_to_the_test():
    assert set(HIDDEN) == set(masks.MASKS)


def test_a_finding_that_fires_says_what_to_do_and_names_figures_and_samples():
    (flag,) = flags([gradients.zero_gradient(masked("scaled_logits"))])
    assert flag.severity == "block"
    assert flag.needs == ("bpda", "black-box", EVIDENCE)
    assert dict(flag.evidence)["ce"] > 0.5
    assert dict(flag.evidence)["cw"] == 0
    assert len(flag.samples) == 5
    assert "digits/" in flag.samples[0]
    assert "--attacks adaptive" in flag.message
    assert flag.stands(["white-box"])
    assert flag.stands(["bpda", "black-box"])
    assert not flag.stands(["bpda", "black-box", EVIDENCE])


def test_behind_a_declared_defense_only_transfer_as_well_lifts_the_block():
    (flag,) = flags([gradients.unavailable_gradients(subject(defended("bit_depth")))])
    assert flag.needs == ("bpda", "black-box", "transfer", EVIDENCE)
    assert "as its card declares" in flag.message


def test_a_gradient_that_is_not_finite_is_as_bad_as_none():
    class Infinite(nn.Module):
        def forward(self, images):
            # Its derivative at the border of the box, where most pixels lie, is infinite.
            return torch.cat([images.flatten(1), 1e-9 * images.clamp_min(0).sqrt().flatten(1)], 1)[:, 54:74]

    data = gauntlet.load_data("digits")
    labels = data.images[:48].flatten(1)[:, 54:64].argmax(1)
    found = gradients.zero_gradient(subject(Infinite(), labels=labels))
    assert found.result == "fired"


def test_finite_differences_agree_with_autograd_on_a_linear_model_to_rounding():
    one = subject(network(64, 10))
    assert gradients.judged_gradients(one, one.pipeline).far.max() < 1e-3


class Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def test_a_gradient_of_the_wrong_sign_is_noticed_by_finite_differences_alone():
    turned = masks.MaskedNetwork(named("cnn.trades_digits"), before=Turned.apply)
    (flag,) = flags(run_checks(subject(turned)))
    assert flag.name == "finite-differences"
    assert flag.severity == "block"
    # What stands in for missing gradients does not mend a wrong one.
    assert flag.needs == ("black-box", EVIDENCE)
    figures = dict(flag.evidence)
    assert figures["wrong"] == figures["judged"]
    assert figures["mean_disagreement"] > 1.5


def test_a_wrong_gradient_is_answered_by_the_search_that_every_standing_sample_faces():
    turned, data = masks.MaskedNetwork(named("cnn.standard_digits"), before=Turned.apply), gauntlet.load_data("digits")
    images, labels = data.images[:5], data.labels[:5]
    usual = gauntlet.evaluate(turned, images, labels, threat="Linf:0.12", attacks="pgd(steps=2)")
    adaptive = gauntlet.evaluate(turned, images, labels, threat="Linf:0.12", attacks="adaptive")
    for found, lifted in ((usual, ()), (adaptive, ("black-box", "planted-example"))):
        (flag,) = (flag for flag in found.flags if flag.name == "finite-differences")
        assert flag.lifted_by == lifted
    assert "answered (finite-differences): every sample that stands faced attacks by black-box" in repr(adaptive)
    assert "not to be trusted (finite-differences)" in repr(usual)
    assert float(adaptive.robust_accuracy) <= float(usual.robust_accuracy)


@pytest.mark.parametrize(
    ("norm", "needs"), [("Linf", ("black-box", "decision-based", EVIDENCE)), ("L1", ("black-box", EVIDENCE))]
)
def test_labels_under_a_ripple_are_no_scores_that_an_attack_could_follow(norm, needs):
    def labels_alone(logits):
        ripple = torch.sin(logits.sum(1, keepdim=True) * 1000 * torch.arange(1, 11)) * 1e-3
        return nn.functional.one_hot(logits.argmax(1), 10) * 10 + ripple

    net = masks.MaskedNetwork(named("cnn.standard_digits"), after=labels_alone)
    found = gradients.finite_differences(subject(net, 24, threat=ThreatModel(norm, 0.15 if norm == "Linf" else 4)))
    assert found.flag.needs == needs
    assert "--attacks adaptive,hop_skip_jump" in found.flag.message
    assert dict(found.evidence)["lost"] >= 16


def test_a_network_that_bends_is_reported_and_not_accused():
    found = gradients.finite_differences(subject(named("cnn.ibp_digits"), threat=ThreatModel("Linf", 0.3)))
    assert found.result == "reported"
    assert found.flag is None
    assert "bends" in found.sentence
    assert dict(found.evidence)["wrong"] == 0


def test_a_ratio_loss_that_is_constant_beyond_the_boundary_is_no_zero_gradient():
    for threat in (ThreatModel("Linf", 0.3), ThreatModel("L2", 2)):
        assert gradients.zero_gradient(subject(named("cnn.standard_digits"), 64, threat=threat)).result == "passed"


def test_the_gradient_of_bpda_is_reported_where_the_pipeline_has_none():
    found = gradients.finite_differences(subject(defended("median")))
    assert found.result == "reported"
    assert found.flag is None
    assert 0.1 < dict(found.evidence)["bpda_disagreement"] < 0.9


def test_the_gradients_of_a_randomised_pipeline_are_judged_by_their_mean():
    class Shaken(nn.Module):
        """Every other pass gives no gradient at all."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.eval()

        def forward(self, images):
            return self.inner(images if torch.rand(()) < 0.5 else images.detach() + 0 * images)

    one = subject(Shaken(named("cnn.trades_digits")), randomised=True)
    assert gradients.zero_gradient(one).result == "passed"
    assert gradients.unavailable_gradients(one).result == "passed"


def test_randomness_in_a_later_batch_is_noticed_too():
    class Late(nn.Module):
        """Random for images that are bright, which come last."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.eval()

        def forward(self, images):
            logits = self.inner(images)
            bright = images.flatten(1).mean(1, keepdim=True) > 0.9
            return torch.where(bright, logits + torch.rand_like(logits), logits)

    data = gauntlet.load_data("digits")
    images = torch.cat([data.images[:128], torch.ones(1, 1, 8, 8)])
    labels = torch.cat([data.labels[:128], torch.zeros(1, dtype=torch.int64)])
    pipeline = DefendedModel(Late(named("cnn.trades_digits")), differentiable=True, randomised=False).eval()
    found = model.randomised_model(Subject(pipeline, images, labels, [str(i) for i in range(129)], LINF))
    assert found.result == "fired"
    assert found.flag.needs == ("eot",)


def test_a_randomised_model_that_agrees_with_itself_by_accident_of_labels_is_noticed_by_its_outputs():
    class Whisper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.eval()

        def forward(self, images):
            logits = self.inner(images)
            return logits + 1e-2 * torch.randn_like(logits)

    found = model.randomised_model(subject(Whisper(named("cnn.trades_digits"))))
    assert found.result == "fired"
    assert dict(found.evidence)["predictions_differ"] == 0


def test_a_module_in_training_mode_blocks():
    pipeline = DefendedModel(
        nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)).eval(), differentiable=True, randomised=False
    ).eval()
    pipeline.model[1].train()
    found = model.eval_mode(subject(pipeline))
    assert found.result == "fired"
    assert found.flag.severity == "block"
    assert found.flag.needs == ()
    assert "training mode" in found.sentence


def test_probabilities_of_a_declared_defense_can_be_attacked_beneath_it():
    found = model.probabilities(subject(defended("reverse_sigmoid")))
    assert found.flag.needs == ("beneath", "black-box", "transfer", EVIDENCE)
    assert model.probabilities(masked("softmax")).flag.needs == ("bpda", "black-box", EVIDENCE)


@pytest.mark.parametrize(("classes", "result"), [(2, "reported"), (3, "reported"), (4, "passed")])
def test_too_few_classes_for_a_loss_are_said(classes, result):
    few = network(64, classes)
    assert model.few_classes(subject(few)).result == result
    absent = Wrapped(few, after=lambda logits: torch.nn.functional.pad(logits, (1, 6), value=-torch.inf))
    found = model.few_classes(subject(absent))
    assert found.result == result
    assert f"{classes} classes" in found.sentence


def test_optimisation_at_test_time_asks_for_transfer_where_there_is_a_twin():
    assert gradients.optimisation_at_test_time(masked("optimising")).flag.needs == ("bpda", "black-box", EVIDENCE)
    found = gradients.optimisation_at_test_time(subject(defended("purify")))
    assert found.flag.needs == ("transfer", "black-box", EVIDENCE)
    # What was hooked is as before.
    assert torch.autograd.grad.__module__ == "torch.autograd"


def test_predictions_are_the_less_stable_the_coarser_the_input():
    def change(before):
        found = gradients.unstable_predictions(subject(masks.MaskedNetwork(named("cnn.standard_digits"), before)))
        assert found.result == "reported"
        assert found.flag is None
        return dict(found.evidence)["mean_relative_change"]

    assert change(lambda x: x) < 0.05
    assert change(lambda x: x + 0.3 * (40 * x).sin()) > 2 * change(lambda x: x)


def test_the_checks_leave_model_and_random_numbers_as_they_were():
    one = masked("noisy_input")
    before = torch.get_rng_state()
    run_checks(one)
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in one.pipeline.parameters())


def test_the_checks_have_names_of_their_own():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)


def test_a_check_that_fails_says_so_and_takes_nothing_with_it():
    class Failing(nn.Module):
        def forward(self, images):
            raise RuntimeError("no")

    findings = run_checks(subject(Failing(), labels=torch.zeros(48, dtype=torch.int64)))
    assert len(findings) > 5
    assert any("The check failed: RuntimeError: no" in finding.sentence for finding in findings)
