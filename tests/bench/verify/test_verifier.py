"""No attack's own word counts: what cheats, wavers or answers with NaN never becomes a success or robustness."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gauntlet
from builders import Function, network, slow_unless
from gauntlet.attacks.ops.random import active_draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Outcome, Task, solve
from gauntlet.bench.run.evaluation import CellFailedError
from gauntlet.bench.verify.measurement import VerificationError
from gauntlet.bench.verify.sample_record import block_record, examine_clean
from gauntlet.bench.verify.verdicts import NonFiniteLogitsError
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.results.record import DRAWS

pytestmark = pytest.mark.usefixtures("registries_as_before")

LINF, L2 = ThreatModel("Linf", 0.1), ThreatModel("L2", 0.2)
N = 6
CHEATS = ["outside the ball", "outside the box", "NaN", "correctly classified"]
_serial = itertools.count()


class Half(nn.Module):
    """Class 1 where the mean of the image is above 0.7."""

    def forward(self, x):
        gap = 0.7 - x.flatten(1).mean(1)
        return torch.stack([gap, -gap], dim=1)


def grey(count=N, value=0.5):
    return torch.full((count, 1, 2, 2), value), torch.zeros(count, dtype=torch.int64)


def cheat(images, kind):
    if kind == "outside the ball":
        return images + 0.3
    if kind == "outside the box":
        return images + torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    if kind == "NaN":
        return images * torch.nan
    return images + 0.01


def evaluate(model, images, labels, **options):
    return gauntlet.evaluate(model.eval(), images, labels, **options)


class State(NamedTuple):
    x: Tensor


@dataclass(frozen=True)
class CheatingRule(Rule[State]):
    """Claims its points as successes, whatever the model answers."""

    kind: str = "NaN"

    @property
    def budget(self):
        return 3

    def start(self, oracle):
        return State(oracle.clean)

    def step(self, state, oracle):
        point = cheat(oracle.clean, self.kind)
        oracle.logits(point)
        oracle.slots = oracle.slots._replace(found=torch.ones_like(oracle.slots.found), point=point)
        return State(point)

    def last(self, state):
        return state.x


@dataclass(frozen=True)
class CheatingMinimum(CheatingRule):
    """The same as a minimum-norm rule, for which there is no ball."""

    minimum_norm: ClassVar[bool] = True


@dataclass(frozen=True)
class CheatingWhole:
    version: ClassVar[int] = 1
    kind: str = "NaN"

    def __call__(self, model, images, labels, seed):
        return cheat(images, self.kind)


def registered(make, *, norms=("Linf", "L2"), minimum_norm=False):
    name = f"toy-{next(_serial)}"
    card = AttackCard(name=name, summary="a toy", source="this test", norms=norms, minimum_norm=minimum_norm)
    gauntlet.register_attack(name, AttackEntry(card, lambda threat, **settings: make(**settings)))
    return name


@pytest.mark.parametrize("make", [CheatingRule, CheatingWhole])
@pytest.mark.parametrize("kind", CHEATS)
def test_an_attack_that_cheats_changes_no_figure_and_is_flagged(kind, make):
    images, labels = grey()
    name = registered(make)
    result = evaluate(Half(), images, labels, threat=LINF, attacks=f'{name}(kind="{kind}")')
    assert result.robust_accuracy == result.clean_accuracy == 1
    assert torch.equal(result.adversarials, images)
    assert result.distance.isinf().all()
    rejected = int(result.per_attack["candidates_rejected"].iloc[0])
    flags = {flag.name: flag for flag in result.flags}
    if kind == "correctly classified":
        assert rejected == 0
        assert "invalid-candidates" not in flags
    else:
        assert rejected >= N
        assert f"{N} of {N} samples" in flags["invalid-candidates"].message


@pytest.mark.parametrize("kind", ["outside the box", "NaN", "correctly classified"])
def test_a_minimum_norm_attack_that_cheats_is_refused_too(kind):
    images, labels = grey()
    name = registered(CheatingMinimum, minimum_norm=True)
    result = evaluate(Half(), images, labels, threat=L2, attacks=f'{name}(kind="{kind}")')
    assert result.robust_accuracy == 1
    assert result.distance.isinf().all()


def test_a_minimum_norm_example_beyond_eps_breaks_nothing_at_that_eps():
    images, labels = grey()
    name = registered(CheatingMinimum, minimum_norm=True)
    for eps, robust in ((0.59, 1), (0.61, 0)):
        threat = ThreatModel("L2", eps)
        result = evaluate(Half(), images, labels, threat=threat, attacks=f'{name}(kind="outside the ball")')
        assert result.robust_accuracy == robust
        assert result.distance.isfinite().all() == (not robust)


def test_a_cheat_beside_an_honest_attack_leaves_the_honest_figure():
    images, labels = grey()
    images[3:] = 0.65
    name = registered(CheatingWhole)
    result = evaluate(Half(), images, labels, threat=LINF, attacks=f'{name}(kind="NaN"), pgd(steps=5)')
    assert result.robust.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    "wrong",
    [lambda images: images[:-1], lambda images: None, lambda images: images.numpy()],
    ids=["short", "None", "numpy"],
)
def test_a_whole_attack_that_returns_no_candidate_for_each_image_is_an_error(wrong):
    class Wrong:
        version = 1

        def __call__(self, model, images, labels, seed):
            return wrong(images)

    with pytest.raises(CellFailedError, match="returned"):
        evaluate(Half(), *grey(), threat=LINF, attacks=registered(Wrong))


def test_an_attack_that_raises_is_an_error_and_never_robustness():
    class Raising:
        version = 1

        def __call__(self, model, images, labels, seed):
            raise MemoryError("no room")

    with pytest.raises(CellFailedError, match="MemoryError: no room"):
        evaluate(Half(), *grey(), threat=LINF, attacks=registered(Raising))


def verifier(model, images, labels, threat=LINF, **options):
    return Verifier(model, images, labels, [str(i) for i in range(len(labels))], threat, seed=0, **options)


def judge(points, model=None, threat=LINF, clean=None, labels=None, **options):
    images = torch.full_like(points, 0.5) if clean is None else clean
    labels = torch.zeros(len(points), dtype=torch.int64) if labels is None else labels
    every = torch.arange(len(points))
    return verifier(model or Half(), images, labels, threat, **options)(points, every, every)


def test_the_edge_of_the_ball_is_inside_up_to_the_rounding_of_float32():
    images, _ = grey(3)
    images += 0.2
    points = images + torch.tensor([0.1, 0.1 + 6e-8, 0.1 + 3e-7])[:, None, None, None]
    verdict = judge(points, clean=images)
    assert verdict.success.tolist() == [True, True, False]
    assert verdict.rejected.tolist() == [False, False, True]


def test_a_pixel_outside_the_box_is_refused_however_little():
    points = torch.tensor([1.0, 1.0 + 1e-6, 0.0, -1e-9])[:, None, None, None].expand(4, 1, 2, 2).clone()
    verdict = judge(points, clean=points.clamp(0, 1), labels=torch.tensor([0, 0, 1, 1]))
    assert verdict.success.tolist() == [True, False, True, False]
    assert verdict.rejected.tolist() == [False, True, False, True]


def test_ties_of_the_largest_logit_go_to_the_first_class():
    class Tie(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 3)

    verdict = judge(torch.full((2, 1, 2, 2), 0.5), Tie(), labels=torch.tensor([0, 1]))
    assert verdict.success.tolist() == [False, True]


class Moody(nn.Module):
    """Answers an image alone otherwise than in company: perturbed images are misclassified in company only."""

    def forward(self, x):
        scale = 1 if len(x) == 1 else 100
        gap = 1 - scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([gap, -gap], dim=1)


def test_candidates_that_hold_in_one_composition_only_are_no_success_and_are_counted():
    verdict = judge(torch.full((3, 1, 2, 2), 0.55), Moody())
    assert not verdict.success.any()
    assert not verdict.rejected.any()
    assert verdict.disagreement.all()


def test_a_model_whose_answer_hangs_on_the_batch_gives_no_success():
    images, labels = grey()
    result = evaluate(Moody(), images, labels, threat=LINF, attacks="fgsm, pgd(steps=3)")
    assert result.robust_accuracy == 1
    ids = [str(i) for i in range(N)]
    outcomes = list(
        solve(PGD(steps=3), Moody(), Task(images, labels, ids, LINF, 0, "pgd"), verifier(Moody(), images, labels))
    )
    assert sum(one.disagreements for one in outcomes) >= N
    assert all(one.adversarial is None for one in outcomes)


class Undefined(nn.Module):
    """Right and finite on grey images, NaN (or infinite) on all others."""

    def __init__(self, value=torch.nan):
        super().__init__()
        self.value = value

    def forward(self, x):
        flat = x.flatten(1)
        off = (flat - 0.5).abs().amax(1) > 1e-3
        gap = torch.where(off, torch.tensor(self.value), 1 + 0 * flat.sum(1)) + 0.01 * flat[:, 0]
        return torch.stack([gap, 0 * gap], dim=1)


@pytest.mark.parametrize(
    ("attack", "threat", "value"),
    [
        slow_unless(value is usual, attack, threat, value)
        for attack, threat, usual in (
            ("fgsm", LINF, torch.inf),
            ("pgd(steps=3)", LINF, torch.nan),
            ("pgd(steps=3)", L2, None),
            ("cw(search_steps=2, steps=5, lr=0.2, c=10)", L2, torch.nan),
        )
        for value in (torch.nan, torch.inf)
    ],
)
def test_nan_logits_on_perturbed_images_are_an_error_and_never_robustness(attack, threat, value):
    with pytest.raises(CellFailedError, match=r"NonFiniteLogitsError.*NaN or infinite"):
        evaluate(Undefined(value), *grey(), threat=threat, attacks=attack)


def test_nan_logits_on_a_clean_image_late_in_the_data_are_an_error():
    images, labels = grey(80)
    images[77] = 0.6
    with pytest.raises(CellFailedError, match="NonFiniteLogitsError"):
        evaluate(Undefined(), images, labels, threat=LINF, attacks="fgsm")


def test_finite_logits_whose_sum_overflows_are_no_error_and_no_success():
    images = torch.full((4, 1, 2, 2), 0.5)
    high = Function(lambda x: torch.cat([x.flatten(1)[:, :1] + 3e38, torch.full((len(x), 3), 2e38)], 1)).eval()
    found = gauntlet.evaluate(high, images, torch.zeros(4, dtype=torch.int64), threat="Linf:0.1", attacks="pgd")
    assert found.robust.all()
    assert found.per_attack["forwards_per_sample"].item() > 10


def test_the_verifier_says_how_many_images_have_nan_logits():
    points = torch.full((3, 1, 2, 2), 0.5)
    points[2] = 0.55
    with pytest.raises(NonFiniteLogitsError, match="1 of 3 valid images"):
        judge(points, Undefined())


def test_distances_are_measured_in_float64_between_the_images_as_they_are():
    images, labels = grey(2)
    points = images + torch.tensor([1e-5, 0.05])[:, None, None, None]
    measured = verifier(Half(), images, labels, L2).measure(points, torch.arange(2))
    expected = (points.double() - images.double()).flatten(1).norm(dim=1)
    assert measured.distance.dtype == torch.float64
    torch.testing.assert_close(measured.distance, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(measured.margin, 2 * (0.7 - points.double().flatten(1).mean(1)), rtol=1e-5, atol=1e-6)


def test_verifying_leaves_the_time_with_the_verifier():
    images, labels = grey()
    verify = verifier(Half(), images, labels)
    assert verify.seconds == 0
    verify(images, torch.arange(N), torch.zeros(N, dtype=torch.int64))
    assert verify.seconds > 0


def outcome(sample, point):
    return Outcome(sample=sample, adversarial=point, forwards=3, backwards=2, taken=1)


def test_a_success_that_does_not_hold_when_measured_again_is_not_stored():
    images, labels = grey(2)
    verify = verifier(Half(), images, labels)
    clean = examine_clean(verify)
    with pytest.raises(VerificationError, match=r"1 of 1 counted successes.*first at 1"):
        block_record(verify, clean, range(2), [outcome(0, None), outcome(1, images[1])], LINF)


def test_a_success_outside_the_ball_is_not_stored():
    images, labels = grey(1)
    verify = verifier(Half(), images, labels)
    with pytest.raises(VerificationError):
        block_record(verify, examine_clean(verify), range(1), [outcome(0, images[0] + 0.3)], LINF)


def test_a_record_has_each_sample_at_its_place():
    images, labels = grey(5)
    images[1] = 0.65
    images[3] = 0.8  # wrong when clean
    images[4] = 0.65
    verify = verifier(Half(), images, labels)
    outcomes = [outcome(4, images[4] + 0.08), outcome(2, None)]
    samples, flags = block_record(verify, examine_clean(verify), range(2, 5), outcomes, LINF)
    assert samples.id.tolist() == ["2", "3", "4"]
    assert samples.clean_prediction.tolist() == [0, 1, 0]
    assert samples.prediction.tolist() == [0, 1, 1]
    assert samples.robust.tolist() == [True, False, False]
    assert samples.forwards.tolist() == [3, 0, 3]
    assert samples.steps.tolist() == [-1, -1, 1]
    assert np.isnan(samples.distance[:2]).all()
    assert samples.distance[2] == pytest.approx(0.08, abs=1e-6)
    assert [image is None for image in samples.adversarial] == [True, True, False]
    assert samples.margin[2] < 0 < samples.margin[0]
    assert flags == ()


class Noisy(nn.Module):
    """Class 1 where the mean exceeds 0.7 after keyed noise of that standard deviation."""

    def __init__(self, sigma):
        super().__init__()
        self.sigma, self.largest = sigma, 0

    def forward(self, x):
        self.largest = max(self.largest, len(x))
        draws = active_draws()
        assert draws is not None, "verification of a randomised model provides its randomness"
        noise = draws.normal((), tag=200, dtype=x.dtype)
        gap = 0.7 - x.flatten(1).mean(1) - self.sigma * noise
        return torch.stack([gap, -gap], dim=1)


def test_a_randomised_model_is_judged_by_the_majority_of_fresh_draws():
    points = torch.tensor([0.4, 0.75, 0.95])[:, None, None, None].expand(3, 1, 2, 2).clone()
    clean = points.clamp(max=0.9)
    measured = verifier(Noisy(0.1), clean, torch.zeros(3, dtype=torch.int64), randomised=True).measure(
        points, torch.arange(3)
    )
    assert measured.wrong_share[0] == 0
    assert 0.5 < measured.wrong_share[1] < 1
    assert measured.prediction.tolist() == [0, 1, 1]
    assert measured.wrong_share.tolist() != measured.wrong_share_scored.tolist()
    steps = torch.round(measured.wrong_share * DRAWS)
    torch.testing.assert_close(measured.wrong_share * DRAWS, steps)


def test_attempts_at_the_same_point_of_a_randomised_model_are_judged_on_new_draws():
    images, labels = grey(1, 0.66)
    verify = verifier(Noisy(0.1), images, labels, randomised=True)
    point, row = torch.full((1, 1, 2, 2), 0.7), torch.zeros(1, dtype=torch.int64)
    verdicts = [bool(verify(point, row, row + attempt).success) for attempt in range(20)]
    assert 0 < sum(verdicts) < 20
    assert verdicts == [bool(verify(point, row, row + attempt).success) for attempt in range(20)]


def test_randomised_models_are_judged_the_same_in_any_company_and_in_batches_of_limited_size():
    count = 700
    images = 0.6 + 0.2 * torch.linspace(0, 1, count)[:, None, None, None].expand(count, 1, 2, 2)
    model = Noisy(0.1)
    verify = verifier(model, images, torch.zeros(count, dtype=torch.int64), randomised=True)
    whole = verify.measure(images, torch.arange(count))
    rows = torch.tensor([5, 333, 699])
    few = verify.measure(images[rows], rows)
    assert torch.equal(whole.wrong_share[rows], few.wrong_share)
    assert torch.equal(whole.wrong_share_scored[rows], few.wrong_share_scored)
    assert model.largest <= 256


def test_a_distant_example_of_a_minimum_norm_attack_does_not_break_a_randomised_model():
    images, labels = grey(2)
    images[1] = 0.69
    verify = verifier(Noisy(0.01), images, labels, L2, randomised=True, minimum_norm=True)
    outcomes = [outcome(0, images[0] + 0.4), outcome(1, images[1] + 0.05)]
    samples, _ = block_record(verify, examine_clean(verify), range(2), outcomes, L2)
    assert samples.robust.tolist() == [True, False]
    assert samples.distance[0] == pytest.approx(0.8, abs=1e-6)
    # What tables choose and score by speaks of eps too.
    assert samples.wrong_share[0] == samples.wrong_share_scored[0] == 0
    assert samples.wrong_share[1] == samples.wrong_share_scored[1] == 1


def test_verdicts_are_the_same_for_a_point_in_any_company():
    generator = torch.Generator().manual_seed(0)
    model = network(12, 3)
    points = torch.rand(40, 1, 3, 4, generator=generator)
    labels = torch.randint(3, (40,), generator=generator)
    whole = judge(points, model, ThreatModel("Linf", 1.0), clean=points, labels=labels)
    assert 0 < whole.success.sum() < 40
    for rows in torch.arange(40).split(7):
        part = judge(points[rows], model, ThreatModel("Linf", 1.0), clean=points[rows], labels=labels[rows])
        assert torch.equal(part.success, whole.success[rows])


class Counted(nn.Module):
    """Class 1 where the mean is above 0.7, and the sizes of all batches."""

    def __init__(self):
        super().__init__()
        self.network, self.sizes = Half(), []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.network(x)


def test_clean_images_take_a_pass_and_successes_far_from_the_boundary_hardly_more():
    count = 320
    images, labels = grey(count)
    model = Counted()
    verify = verifier(model, images, labels, ThreatModel("Linf", 0.4))
    clean = examine_clean(verify)
    assert sum(model.sizes) == count * (1 + 1 / 16)
    model.sizes.clear()
    points = images + 0.3
    every = torch.arange(count)
    assert verify(points, every, torch.zeros_like(every)).success.all()
    outcomes = [outcome(row, points[row]) for row in range(count)]
    samples, flags = block_record(verify, clean, range(count), outcomes, ThreatModel("Linf", 0.4))
    assert not samples.robust.any()
    assert not flags
    assert sum(model.sizes) == count * (1 + 1 / 16)
    assert model.sizes.count(1) == count / 16


def test_successes_near_the_boundary_are_judged_alone():
    images, labels = grey(40)
    model = Counted()
    points = images + 0.2 + 1e-6
    verify = verifier(model, images, labels, ThreatModel("Linf", 0.4))
    examine_clean(verify)
    model.sizes.clear()
    assert verify(points, torch.arange(40), torch.zeros(40).long()).success.all()
    assert model.sizes.count(1) == 40


class SometimesMoody(nn.Module):
    """As `Moody` for bright images, and sound for all others."""

    def forward(self, x):
        bright = x.flatten(1).mean(1) > 0.52
        sound = torch.stack([0.51 - x.flatten(1).mean(1), x.flatten(1).mean(1) - 0.51], 1)
        return torch.where(
            (bright & (len(x) > 1))[:, None], sound, sound.flip(1) * bright[:, None] + sound * ~bright[:, None]
        )


def test_where_an_audited_success_fails_alone_all_successes_of_the_block_are_judged_alone():
    count = 64
    images, labels = grey(count)
    result = evaluate(SometimesMoody(), images, labels, threat=LINF, attacks="fgsm", checks="none")
    assert result.robust_accuracy == 1
    (flag,) = [flag for flag in result.flags if flag.name == "batch-dependent"]
    assert flag.severity == "block"
    assert "failed alone" in flag.message
