"""Trying adversarial examples on a cell's pipeline, as it is or with the weights of a baseline's model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.executors.executable import Prepared
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.bench.worker.attack_blocks import frozen
from gauntlet.bench.worker.messages import Tried
from gauntlet.bench.worker.request import BaselineModel, TryExamples
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import DRAWS

_SAME = 1e-3
"""Allowed difference from the baseline's logits, relative to the largest: rounding on another device."""


class RestoreError(ValueError):
    """A baseline's weights do not make the baseline's model; the message says why."""


@dataclass
class BaselineModels:
    """The pipeline with a baseline's weights that was made last, or why it could not be."""

    _made: tuple[Cell, str, DefendedModel | None, str] | None = None

    def has(self, cell: Cell, digest: str) -> bool:
        """Whether the pipeline of that cell was made last with the weights of that digest, or could not be."""
        return self._made is not None and self._made[:2] == (cell, digest)

    def pipeline(self, prepared: Prepared, baseline: BaselineModel) -> tuple[DefendedModel | None, str, int]:
        """The pipeline, or None and the reason; and the number of forward passes that were made for it."""
        made, forwards = self._made, 0
        if made is None or not self.has(prepared.cell, baseline.digest):
            found, reason, forwards = _with_weights(prepared, baseline)
            self._made = made = (prepared.cell, baseline.digest, found, reason)
        return made[2], made[3], forwards


def try_examples(bench: Workbench, baselines: BaselineModels, request: TryExamples) -> Tried:
    """The examples that the verifier confirms; none if the baseline's model cannot be made."""
    prepared = bench.prepare(request.cell, measured=request.measured)
    pipeline, forwards = prepared.defended, 0
    if request.baseline is not None:
        if not request.baseline.weights and not baselines.has(prepared.cell, request.baseline.digest):
            return Tried(needs_weights=True)
        made, reason, forwards = baselines.pipeline(prepared, request.baseline)
        if made is None:
            return Tried(forwards=forwards, reason=reason)
        pipeline = made
    if not request.indices:
        return Tried(forwards=forwards)
    points = torch.tensor(request.images).to(_images(prepared, request.indices[:1]))
    with frozen(pipeline, prepared.cell.info.seed):
        rows = torch.arange(len(points), device=points.device)
        verdict = _verifier(prepared, pipeline, request.indices)(points, rows, torch.zeros_like(rows))
    forwards += len(points) * (DRAWS if prepared.cell.info.randomised else 1)
    return Tried(tuple(verdict.success.tolist()), forwards)


def restore(model: nn.Module, weights: bytes, digest: str) -> None:
    """Load the tensors of a safetensors file into a model of the same architecture, in place.

    Raises RestoreError if they do not fit, or if the digest of the result is not `digest`.
    """
    try:
        state = safetensors.torch.load(weights)
    except (SafetensorError, ValueError) as error:
        raise RestoreError(f"the artifact's weights are damaged ({error}): fetch the artifact again") from error
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    if {name: tensor.shape for name, tensor in own.items()} != {name: tensor.shape for name, tensor in state.items()}:
        raise RestoreError("the baseline's weights do not fit the current architecture")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
    if model_digest(model) != digest:
        raise RestoreError("the current model with the baseline's weights is not the baseline's model")


def _with_weights(prepared: Prepared, baseline: BaselineModel) -> tuple[DefendedModel | None, str, int]:
    try:
        pipeline = copy.deepcopy(prepared.defended)
        model = next(part for part in pipeline.modules() if isinstance(part, Classifier))
        restore(model, baseline.weights, baseline.digest)
    except RestoreError as error:
        return None, f"no replay: {error}", 0
    except Exception as error:  # copying a user's model may raise anything
        return None, f"no replay: the current model cannot be copied ({type(error).__name__}: {error})", 0
    if baseline.logits is None:
        return pipeline, "", 0
    stored = np.array(baseline.logits, dtype=np.float64)
    with frozen(pipeline, prepared.cell.info.seed):
        now = _verifier(prepared, pipeline, baseline.samples).logits(_images(prepared, baseline.samples))
    computed = now.to(torch.float64).cpu().numpy()
    same = computed.shape == stored.shape and bool(
        np.allclose(computed, stored, rtol=0, atol=_SAME * float(np.abs(stored).max()))
    )
    if not same:
        reason = "no replay: the current code with the baseline's weights does not give the baseline's logits"
        return None, reason, len(stored)
    return pipeline, "", len(stored)


def _images(prepared: Prepared, indices: Sequence[int]) -> torch.Tensor:
    return prepared.data.images[list(indices)].to(prepared.device)


def _verifier(prepared: Prepared, pipeline: DefendedModel, indices: Sequence[int]) -> Verifier:
    return Verifier.of(prepared, list(indices), pipeline, minimum_norm=False)
