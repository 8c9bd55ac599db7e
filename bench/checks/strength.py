"""Checks of the attack's strength, on problems that are known to have a solution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, model_randomness
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.slide import SLIDE
from gauntlet.attacks.solving.oracle import AttackError
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.views.guard import guarded, seed_torch
from gauntlet.bench.checks.run_attack import run_attack, unbroken, whole_box
from gauntlet.bench.checks.subject import Finding, Subject, fired, not_applicable, passed, reported, without_gradients
from gauntlet.bench.executors.executable import Executable
from gauntlet.bench.executors.native import NativeExecutable
from gauntlet.defenses.pipeline.defended_model import DefendedModel

_FROZEN_SAMPLES = 8
NO_ATTACK = "No attack is given."


def unbounded_attack(subject: Subject) -> Finding:
    """With eps = the whole box every sample is broken (Carlini et al. 2019, section 4; Pintor et al. 2022)."""
    name, few = "unbounded-attack", subject.few().right
    if subject.attack is None or not len(few.labels):
        return not_applicable(name, NO_ATTACK)
    left = unbroken_by(few, subject.attack, everything=True)
    return _must_break(
        name,
        few,
        left,
        "with eps = the whole box",
        "that ball contains images of other classes, so the attack is broken or does not work here. Use another attack: "
        "--attacks adaptive.",
        needs=(name,),
    )


def obfuscation(subject: Subject) -> Finding:
    """PGD of 100 steps of eps/50 in the whole box leaves at most chance accuracy (ART's check of gradient obfuscation)."""
    name, few = "obfuscation", subject.few().right
    classes = _classes(subject)
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly.")
    rule: Rule[Any] = PGD(steps=100, step_size=1 / 50) if few.threat.norm != "L1" else SLIDE(steps=100)
    try:
        left = unbroken_by(few, NativeExecutable.of(rule), everything=True)
    except AttackError:
        return not_applicable(name, "There are no gradients, see unavailable-gradients.")
    share, count = float(left.double().mean()), len(few.labels)
    figures = {"accuracy": share, "chance": 1 / classes, "samples": count}
    sentence = f"PGD of 100 steps in the whole box leaves {100 * share:.1f} % of {count} samples (chance: {100 / classes:.1f} %)"
    if share <= 1 / classes:
        return passed(name, f"{sentence}.", **figures)
    return fired(
        name,
        "block",
        f"{sentence}: the gradients do not lead out of the class, so the figures of gradient attacks mean little. "
        "Attack by BPDA, by other losses and without gradients: --attacks adaptive.",
        needs=without_gradients(subject),
        evidence=figures,
        samples=few.named(left),
    )


def undefended_twin(subject: Subject) -> Finding:
    """The attack breaks the model without its defense; otherwise the attack is broken (Carlini et al. 2019)."""
    name, twin = "undefended-twin", subject.pipeline.twin
    if twin is None or subject.attack is None:
        return not_applicable(name, "There is no defense to remove." if twin is None else NO_ATTACK)
    bare = replace(subject, pipeline=DefendedModel(twin, differentiable=True, randomised=False), victim=None)
    few = bare.few().right
    at_eps = int(unbroken_by(few, subject.attack).sum())
    left = unbroken_by(few, subject.attack, everything=True)
    return _must_break(
        name,
        few,
        left,
        f"of the undefended model, in the whole box (at eps it leaves {at_eps})",
        "the attack fails even without the defense. Use another attack: --attacks adaptive.",
        standing_at_eps=at_eps,
    )


def frozen_randomness(subject: Subject) -> Finding:
    """With its randomness frozen, a randomised defense is a deterministic model that must break (Carlini et al. 2019)."""
    name = "frozen-randomness"
    if not subject.randomised or subject.attack is None:
        return not_applicable(name, "The pipeline is not randomised." if subject.attack else NO_ATTACK)
    frozen = replace(
        subject,
        pipeline=DefendedModel(
            FrozenDraw(subject.view), differentiable=True, randomised=False, rejects=subject.pipeline.rejects
        ),
        victim=None,
    )
    few = frozen.few(_FROZEN_SAMPLES).right
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly with the randomness frozen.")
    left = unbroken_by(few, subject.attack, everything=True)
    return _must_break(
        name,
        few,
        left,
        "of the pipeline with its randomness frozen, in the whole box",
        "randomness is not the reason why the attack fails: its gradients are not useful. Use another attack: "
        "--attacks adaptive.",
    )


def transfer_failure(subject: Subject) -> Finding:
    """The share of the undefended model's examples that get another label from the defended model (Pintor et al. 2022, 4)."""
    name, twin = "transfer-failure", subject.pipeline.twin
    if twin is None:
        return not_applicable(name, "There is no surrogate: the pipeline has no defense.")
    bare = replace(subject, pipeline=DefendedModel(twin, differentiable=True, randomised=False), victim=None)
    few = bare.few().right
    rule: Rule[Any] = PGD(steps=20, loss="cw") if few.threat.norm != "L1" else SLIDE(steps=20, loss="cw")
    broken = [outcome for outcome in run_attack(few, NativeExecutable.of(rule)) if outcome.adversarial is not None]
    points = (
        torch.stack([outcome.adversarial for outcome in broken if outcome.adversarial is not None])
        if broken
        else few.images[:0]
    )
    rows = torch.tensor([outcome.sample for outcome in broken], dtype=torch.int64, device=few.labels.device)
    if not broken:
        return not_applicable(name, "The undefended model has no adversarial examples here.")
    judged = replace(subject, images=few.images, labels=few.labels, ids=few.ids).verifier(subject.threat)
    with guarded(subject.pipeline, 0), torch.no_grad():
        twin_predictions = twin(points).argmax(1).cpu()
        predictions = judged.measure(points, rows).prediction
    failed = int((twin_predictions != predictions).sum())
    return reported(
        name,
        f"{failed} of {len(broken)} examples of the undefended model get another label from the defended model: an attack by "
        "transfer alone fails on them.",
        failed=failed,
        examples=len(broken),
    )


class FrozenDraw(nn.Module):
    """A randomised model with the same random numbers for every image, whatever the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of images (N, C, H, W), with one image per pass, since numbers from torch's generator depend on the row."""
        key = torch.zeros(1, dtype=torch.int64, device=images.device)
        rows = []
        for image in images.split(1):
            with torch.random.fork_rng(devices=[]), model_randomness(Draws.start(key)):
                seed_torch(0)
                rows.append(self.model(image))
        return torch.cat(rows)


def unbroken_by(subject: Subject, attack: Executable, *, everything: bool = False) -> Tensor:
    """The subject's samples that the attack does not break, bool (N,); `everything`: in the whole box."""
    threat = whole_box(subject.threat, subject.images) if everything else None
    return unbroken(run_attack(subject, attack, threat=threat), subject.labels.device)


def _must_break(
    name: str, subject: Subject, left: Tensor, where: str, means: str, needs: tuple[str, ...] = (), **figures: float
) -> Finding:
    count = int(left.sum())
    sentence = f"The attack leaves {count} of {len(left)} samples unbroken {where}"
    figures = {"standing": count, "samples": len(left), **figures}
    if not count:
        return passed(name, f"{sentence}.", **figures)
    return fired(name, "block", f"{sentence}: {means}", needs=needs, evidence=figures, samples=subject.named(left))


def _classes(subject: Subject) -> int:
    if subject.classes:
        return subject.classes
    with torch.no_grad():
        return int(subject.pipeline(subject.images[:1]).shape[1]) - subject.pipeline.rejects
