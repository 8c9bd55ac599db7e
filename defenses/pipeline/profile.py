"""The measured profile of a pipeline (a model behind a defense): randomness, gradients, kind of outputs.

A card is not sufficient, since the forward pass of a user's model may contain an undeclared defense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.input_gradient import input_gradient
from gauntlet.attacks.ops.losses import LOSSES, Loss
from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.attacks.ops.rounding import difference
from gauntlet.attacks.views.backward_modes import Backward
from gauntlet.attacks.views.fast_model import full_float32
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.interception.mode import InterceptionMode
from gauntlet.attacks.views.interception.release import release
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.finite_differences import Slice, interior, wrong_at_small_scales
from gauntlet.defenses.pipeline.gradient_noise import gradient_noise
from gauntlet.defenses.pipeline.inner_view import InnerView

PASSES = 5
"""Number of passes over the same images that are compared (AutoAttack's checks, Croce and Hein 2020)."""
GAP = 1e-4
"""Largest difference of two passes of a deterministic model, as a share of the margins (theirs: of normalised logits)."""
_SAMPLES = 16
_MOVED = 2.0**-6
"""By how much pixels are moved before gradients are compared with differences at smaller steps."""

_BLENDS = 16
"""Steps from one image to the next at which labels of several passes are compared."""

Gradients = Literal["useful", "wrong", "zero", "none"]
"""`none`: autograd fails, or does not reach the input. `zero`: half of the images have a zero or non-finite gradient.
`wrong`: on a quarter of the images it differs from finite differences at every small scale."""
Outputs = Literal["scores", "probabilities", "labels", "votes"]
"""`labels`: the same two values in every row, the larger one once. `votes`: few distinct values. `probabilities`: every row is a
distribution."""


@dataclass(frozen=True)
class PipelineProfile:
    """Properties that determine the adaptive attack, measured on a few clean images."""

    gradients: Gradients
    randomised: bool
    takes_gradients: bool
    """Whether the forward pass calls autograd: optimisation at test time."""
    outputs: Outputs = "scores"
    intercepted: tuple[str, ...] = ()
    """Operations in the forward pass that hide its gradient, each as `argmax in defended.py:31`; empty unless `judge`d."""
    inner: tuple[InnerView, ...] = ()
    """Classifiers within a pipeline with masked gradients, see `find_inner_views`."""
    gradient_noise: float | None = None
    """Number of draws whose mean gradient has as much noise as signal, see `gradient_noise`; None if there is no randomness, or
    no gradient."""


def pipeline_profile(pipeline: DefendedModel, images: Tensor, labels: Tensor, *, judge: bool = True) -> PipelineProfile:
    """Measure a pipeline on at most 16 of the images (N, C, H, W) with labels (N,).

    `judge`: whether gradients that exist are compared with finite differences. BPDA's are no derivatives, and are not.
    """
    few, own = images[:_SAMPLES], labels[:_SAMPLES]
    with guarded(pipeline, 0), full_float32():
        gap = _gap(pipeline, few)
        with torch.no_grad(), gradients_taken() as taken:
            outputs = pass_over(pipeline, few, 0)
        worst: Gradients = "useful"
        for loss in LOSSES.values():
            gradients = gradient(lambda at: judged_logits(pipeline, at, own, 0), few, own, loss)
            if gradients is None:
                worst = "none"
            elif worst != "none" and 2 * int(dead(gradients).sum()) >= len(few):
                worst = "zero"
        if judge and worst == "useful" and gap <= GAP and _wrong(pipeline, few, own):
            worst = "wrong"
        hidden = intercepted(pipeline, few) if judge else ()
        kind = kind_of_outputs(outputs)
        random = gap > GAP or _draws_labels(pipeline, few, kind)
    return PipelineProfile(worst, random, taken.calls > 0, kind, hidden)


def is_random(pipeline: nn.Module, images: Tensor) -> bool:
    """Whether passes over the same images differ, measured on at most 16 of the images (N, C, H, W)."""
    few = images[:_SAMPLES]
    with guarded(pipeline, 0), full_float32():
        if _gap(pipeline, few) > GAP:
            return True
        with torch.no_grad():
            kind = kind_of_outputs(pass_over(pipeline, few, 0))
        return _draws_labels(pipeline, few, kind)


def measured_noise(view: nn.Module, images: Tensor, labels: Tensor, backward: Backward) -> float | None:
    """`gradient_noise` of a randomised pipeline, or of its view for gradient attacks, near at most 16 of the images."""
    few, own = images[:_SAMPLES], labels[:_SAMPLES]
    keys = Draws.start(sample_keys(0, "directions", [str(row) for row in range(len(few))], few.device))
    with guarded(view, 0), full_float32():
        return gradient_noise(view, judged_logits, interior(few, keys, _MOVED), own, backward)


def intercepted(pipeline: nn.Module, images: Tensor) -> tuple[str, ...]:
    """The operations of a forward pass over images (N, C, H, W) that take its gradient away, with file and line of the caller.

    Empty where the pass cannot be intercepted, as in a TorchScript module.
    """
    with torch.enable_grad(), InterceptionMode(len(images), record=True) as mode:
        try:
            pass_over(pipeline, images.detach().clone().requires_grad_().clone(), 0)
        except Exception:
            # Code of others, which may raise anything on a tensor that needs a gradient.
            return ()
    release(pipeline)
    assert mode.seen is not None
    return tuple(f"{name} in {Path(place).name}" for place, name in mode.seen.items())


def _wrong(pipeline: DefendedModel, images: Tensor, labels: Tensor) -> bool:
    keys = Draws.start(sample_keys(0, "directions", [str(row) for row in range(len(images))], images.device))
    base = interior(images, keys, _MOVED)
    function = Slice.at(pipeline, judged_logits, base, labels, draws=1)
    return 4 * int(wrong_at_small_scales(function, base, keys).sum()) >= max(len(images), 12)


def kind_of_outputs(outputs: Tensor) -> Outputs:
    """Labels, votes, probabilities or scores, by the values of a few outputs (N, K); classes that are −∞ in all take no part."""
    outputs = outputs[:, (outputs > -torch.inf).any(0)]
    if len(outputs) > 1 and outputs.shape[1] > 2:
        low, high = outputs.amin(1, keepdim=True), outputs.amax(1, keepdim=True)
        two_values = bool((((outputs == low) | (outputs == high)).all(1) & ((outputs == high).sum(1) == 1)).all())
        if two_values and bool((low == low[0]).all()) and bool((high == high[0]).all()):
            return "labels"
        # Scores of so many images and classes hardly ever agree; counts of a few voters do.
        if len(outputs.unique()) <= outputs.shape[1]:
            return "votes"
    return "probabilities" if are_probabilities(outputs) else "scores"


def are_probabilities(outputs: Tensor) -> bool:
    """Whether every row of the outputs (N, K) is a distribution, by the rule of AutoAttack's checks (Croce and Hein 2020)."""
    if not outputs.numel():
        return False
    bounded = bool(outputs.max() < 1 + 1e-5) and bool(outputs.min() > -1e-5)
    return bounded and bool(((outputs.sum(1) - 1).abs() < 1e-5).all())


def pass_over(model: nn.Module, images: Tensor, number: int) -> Tensor:
    """Outputs (N, K) of a pass; random numbers of the model are keyed by `number` and row."""
    keys = sample_keys(0, "look at the model", [str(row) for row in range(len(images))], images.device)
    draws = Draws.start(keys)
    with model_randomness(draws.at(step=torch.full_like(draws.step, number))):
        outputs: Tensor = model(images)
    return outputs


def spread(model: nn.Module, images: Tensor) -> tuple[float, Tensor]:
    """Compare `PASSES` passes over the same images: their largest difference from the first one, and predictions (P, N).

    It is that of `gauntlet.attacks.ops.rounding`, so that neither a constant on all logits nor absent classes hide it.
    """
    with torch.no_grad():
        passes = torch.stack([pass_over(model, images, number) for number in range(PASSES)])
    worst = max(difference(one, passes[0]) for one in passes[1:]) if len(images) else 0.0
    return worst, passes.argmax(2)


def _gap(model: nn.Module, images: Tensor) -> float:
    """The largest difference of passes over the images and over points between them.

    Between two images decisions are close: labels that are drawn differ there, which agree on images of clear classes.
    """
    return spread(model, torch.cat([images, (images + images.roll(1, 0)) / 2]))[0]


def _draws_labels(model: nn.Module, images: Tensor, kind: Outputs) -> bool:
    """Whether labels or votes are drawn: they hardly ever change where the margin is large, as at clean images."""
    return kind in ("labels", "votes") and _differs_between(model, images)


def _differs_between(model: nn.Module, images: Tensor) -> bool:
    """Whether two passes differ at a point on the way from an image to the next, some of which lie near a boundary."""
    others = images.roll(1, 0)
    with torch.no_grad():
        for step in range(1, _BLENDS):
            points = images + (step / _BLENDS) * (others - images)
            first = pass_over(model, points, 0)
            if any(not torch.equal(pass_over(model, points, number), first) for number in range(1, PASSES)):
                return True
    return False


def judged_logits(model: nn.Module, images: Tensor, labels: Tensor, number: int) -> Tensor:
    """The logits of a pass with random numbers of their own, of K classes also where the pipeline may reject."""
    outputs = pass_over(model, images, number)
    return reduced(outputs, labels) if getattr(model, "rejects", False) else outputs


def gradient(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, loss: Loss) -> Tensor | None:
    """The gradient (N, C, H, W) of a loss at the images, by autograd through `logits`; None if there is none."""
    point = images.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            return input_gradient(loss(logits(point), labels), point)
    except (RuntimeError, TypeError):
        return None


def dead(gradients: Tensor) -> Tensor:
    """Samples whose gradient is zero everywhere or not finite, bool (N,)."""
    flat = gradients.flatten(1)
    return (flat.abs().sum(1) == 0) | ~flat.isfinite().all(1)


@dataclass
class AutogradCalls:
    """The number of calls of autograd."""

    calls: int = 0


@contextmanager
def gradients_taken() -> Iterator[AutogradCalls]:
    """Count calls of autograd within the context, by replacing torch's functions. Not thread-safe."""
    taken = AutogradCalls()
    old: dict[str, Callable[..., Any]] = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            taken.calls += 1
            return old[name](*args, **settings)

        return call

    try:
        for name in old:
            setattr(torch.autograd, name, counting(name))
        yield taken
    finally:
        for name, function in old.items():
            setattr(torch.autograd, name, function)


_TRANSFORMATION_SAMPLES = 8
_TRANSFORMATION_PASSES = 8
"""With 8 passes, a transformation with a single coin toss per batch looks deterministic in 1 of 128 measurements."""


def is_differentiable(transform: nn.Module, images: Tensor) -> bool:
    """Whether autograd gives a gradient through a transformation, measured on a few of the images (N, C, H, W).

    True if the gradient of a random projection of the output exists, is finite and is not zero everywhere. That is necessary
    for a useful gradient, but not sufficient: see the checks for gradient masking. Errors of the transformation itself are
    raised; an error that only occurs with gradients gives False.
    """
    _not_empty(images)
    with guarded(transform, 0):
        few = images[:_TRANSFORMATION_SAMPLES].detach().clone()
        with torch.no_grad():
            output = pass_over(transform, few.clone(), 0)
        if not output.is_floating_point():
            return False
        projection = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
        point = few.clone().requires_grad_()
        try:
            output = pass_over(transform, point, 0)
            (gradient,) = torch.autograd.grad((output * projection).sum(), point, allow_unused=True)
        except (RuntimeError, TypeError):
            return False
        return gradient is not None and bool(gradient.isfinite().all()) and bool((gradient != 0).any())


def is_randomised(transform: nn.Module, images: Tensor) -> bool:
    """Whether passes over the same images (N, C, H, W) differ, measured on a few images with new draws in each pass."""
    _not_empty(images)
    with guarded(transform, 0), torch.no_grad():
        few = images[:_TRANSFORMATION_SAMPLES].detach().clone()
        first = pass_over(transform, few.clone(), 0)
        return any(
            not torch.equal(first, pass_over(transform, few.clone(), attempt))
            for attempt in range(1, _TRANSFORMATION_PASSES)
        )


def _not_empty(images: Tensor) -> None:
    if len(images) == 0:
        raise ValueError("images is empty: pass a few images (N, C, H, W) to measure on")
