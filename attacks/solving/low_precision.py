"""An attack on a faster form of the model. Samples that survive in low precision are attacked again in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Meter, Outcome, Stage, Task, Verify, solve
from gauntlet.attacks.views.fast_model import FastModel


def solve_fast(
    attack: Rule[Any] | Sequence[Stage],
    fast: FastModel,
    task: Task,
    verify: Verify,
    *,
    batch_size: int,
    verify_every: int,
    classes: int,
    meter: Meter,
    views: Mapping[str, nn.Module] | None = None,
    rejects: bool = False,
    progress: Callable[[float], None] | None = None,
    useful: Callable[[], int] | None = None,
) -> Iterator[Outcome]:
    """`solve` on a form of the model; each outcome is yielded as soon as it is known.

    If the form is in low precision (`FastModel.again`), samples that survive are attacked again on `fast.full`, by the same
    attack with the same random numbers, so that rounding costs no example. Their outcomes have the costs of both attacks.
    `progress` sees the first attack alone. `useful`: as of `solve`.
    """
    run = functools.partial(
        solve,
        attack,
        batch_size=batch_size,
        verify_every=verify_every,
        classes=classes,
        meter=meter,
        views=views,
        rejects=rejects,
        useful=useful,
    )
    if fast.full is None or not fast.again:
        yield from run(fast.module, task, verify, progress=progress)
        return
    standing: list[Outcome] = []
    for outcome in run(fast.module, task, verify, progress=progress):
        if outcome.adversarial is not None:
            yield outcome
            continue
        standing.append(outcome)
        # As soon as they fill a batch, so that blocks are stored while the attack goes on.
        if len(standing) == batch_size:
            yield from _finish(run, fast.full, task, verify, standing)
            standing = []
    if standing:
        yield from _finish(run, fast.full, task, verify, standing)


def _finish(
    run: Callable[..., Iterator[Outcome]], full: FastModel, task: Task, verify: Verify, standing: Sequence[Outcome]
) -> Iterator[Outcome]:
    rows = torch.tensor([outcome.sample for outcome in standing], device=task.images.device)
    left = replace(
        task,
        images=task.images[rows],
        labels=task.labels[rows],
        ids=[task.ids[outcome.sample] for outcome in standing],
        targets=None if task.targets is None else task.targets[rows],
        clean_logits=None if task.clean_logits is None else task.clean_logits[rows],
    )
    for outcome in run(full.module, left, lambda points, samples, attempt: verify(points, rows[samples], attempt)):
        yield _both(standing[outcome.sample], outcome)


def _both(low: Outcome, full: Outcome) -> Outcome:
    """The outcome of the second attack with the costs and incidents of both."""
    sums = ("forwards", "backwards", "taken", "rejected", "disagreements", "masked_fallback", "gradients", "vanished")
    return replace(
        full,
        sample=low.sample,
        nearest={kind: min(low.near(kind), full.near(kind)) for kind in low.nearest | full.nearest},
        speculative=low.speculative + full.speculative,
        **{name: getattr(low, name) + getattr(full, name) for name in sums},
    )
