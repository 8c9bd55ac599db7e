"""The check with planted adversarial examples: one is planted in the ball of each sample, and the attack has to find it.

Zimmermann, Brendel, Tramèr and Carlini, "Increasing confidence in adversarial robustness evaluations", NeurIPS 2022 (arXiv
2206.13991): for each sample the last layer is replaced by a linear readout of its features that separates a planted point of
the ball from points around the clean image. The layers before it are kept, and so are those behind it (the paper drops them):
whatever masks the gradient of the model masks that of the readout. The example exists by construction, and an attack that
misses it would miss examples of the model too.

Departures from the paper: the readout interpolates in closed form (of least norm) instead of being trained; it has the
scale of the model's own margin, and as many classes as the model. Behind a declared defense the undefended model may be replaced
as a whole, by a readout of the images that reach it. A network without a layer that can be replaced is left alone: in its place
a readout would replace what hides the gradient too, and finding the example would show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.norms import distance, project, random_point, steepest
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.bench.checks.run_attack import run_attack, unbroken
from gauntlet.bench.checks.subject import Finding, Subject, fired, not_applicable, passed

SAMPLES = 32
AROUND = 15
"""Number of random points of the ball that keep the label, as the clean image does."""
REACH = 0.5
"""Margin of the planted point beyond the boundary, as a share of the clean margin."""
FOUND = 0.95
"""Least share of the planted examples that an attack must find."""


class NoReadoutError(ValueError):
    """No layer can be replaced by a readout."""


@dataclass(frozen=True, eq=False)
class Readout:
    """The replacement of the layer: for sample i, features f → the logit weight_i · f + offset_i of its planted class."""

    layer: nn.Module
    clean: Tensor
    """(N, C, H, W): a point belongs to the sample whose clean image is the nearest, in the norm of the threat model."""
    weight: Tensor
    """(N, F)."""
    offset: Tensor
    """(N,): the logit is 0 on the boundary to the label, whose logit is 0."""
    labels: Tensor
    hidden: Tensor
    """int64 (N,), the class of the planted point."""
    others: Tensor
    """(N,), the logit of all other classes."""
    threat: ThreatModel
    columns: int
    """Number of outputs of the layer."""
    images: bool
    """Whether the layer receives images: then each of its inputs shows its sample, also where a defense makes copies."""

    def which(self, points: Tensor) -> Tensor:
        """The samples, int64 (M,), that points (M, C, H, W) belong to."""
        order = {"Linf": torch.inf, "L2": 2.0, "L1": 1.0}[self.threat.norm]
        return self._nearest(points, order)

    def behind(self, copies: Tensor) -> Tensor:
        """The samples, int64 (M,), that images (M, C, H, W) behind the defense belong to: the nearest, whatever was added."""
        return self._nearest(copies, 2.0)

    def _nearest(self, points: Tensor, order: float) -> Tensor:
        with torch.no_grad():
            return torch.cdist(points.detach().flatten(1), self.clean.flatten(1), p=order).argmin(1)

    def logits(self, features: Tensor, rows: Tensor) -> Tensor:
        """(M, columns) for features (M, …) of points of the samples at `rows`."""
        value = (features.flatten(1) * self.weight[rows]).sum(1) + self.offset[rows]
        blank = self.others[rows][:, None].expand(-1, self.columns)
        label = torch.zeros_like(value)[:, None]
        return blank.scatter(1, self.labels[rows][:, None], label).scatter(
            1, self.hidden[rows][:, None], value[:, None]
        )


class PlantedModel(nn.Module):
    """A model with the readout in place of its layer during the forward pass."""

    def __init__(self, model: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.model = model
        self.readout = readout
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of the changed model."""
        rows = self.readout.which(images)

        def replace(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return self.readout.logits(given[0], self.readout.behind(given[0]) if self.readout.images else rows)

        handle = self.readout.layer.register_forward_hook(replace)
        try:
            outputs: Tensor = self.model(images)
        finally:
            handle.remove()
        return outputs


def planted_example(subject: Subject) -> Finding:
    """The attack finds the adversarial example that is planted in the ball of each sample."""
    name, few = "planted-example", subject.right.few(SAMPLES)
    if subject.attack is None:
        return not_applicable(name, "No attack is given.")
    few = _apart(few)
    try:
        readout, points = plant_examples(few)
    except NoReadoutError as error:
        return not_applicable(name, str(error))
    model = PlantedModel(few.pipeline, readout)
    every = torch.arange(len(few.labels), device=few.labels.device)
    with guarded(model, 0):
        verify = few.verifier(few.threat, model)
        there = verify(points, every, torch.zeros_like(every)).success
        clean = verify.measure(few.images, every).prediction.to(few.labels.device) == few.labels
    rows = (there & clean).nonzero().squeeze(1)
    if len(rows) < 3:
        return not_applicable(name, f"An example could be planted for only {len(rows)} of {len(few.labels)} samples.")
    chosen = few.of(rows)
    left = unbroken(
        run_attack(chosen, subject.attack, wrap=lambda model_view: PlantedModel(model_view, readout)), few.labels.device
    )
    missed, count = int(left.sum()), len(rows)
    figures = {"missed": missed, "planted": count}
    if missed <= (1 - FOUND) * count:
        return passed(name, f"The attack finds {count - missed} of {count} planted examples.", **figures)
    return fired(
        name,
        "block",
        f"The attack misses {missed} of {count} examples that were planted in the balls (by a linear readout of the last "
        "layer's features): it may miss those of the model too. Use another attack: --attacks adaptive.",
        needs=(name,),
        evidence=figures,
        samples=chosen.named(left),
    )


def plant_examples(subject: Subject) -> tuple[Readout, Tensor]:
    """Build the readout for the subject's samples, and the planted points (N, C, H, W). Raises NoReadoutError."""
    images, threat = subject.images, subject.threat
    draws = subject.draws("planted example")
    hidden_points = _far(images, threat, draws)
    around = [random_point(images, threat, draws.at(step=torch.full_like(draws.step, i + 1))) for i in range(AROUND)]
    with guarded(subject.pipeline, 0), torch.no_grad():
        outputs = subject.pipeline(images)
        layer, columns = _last_layer(subject, outputs)
        copies = layer is subject.pipeline.twin and isinstance(subject.pipeline.transform, nn.Identity)
        shown = [
            points.flatten(1) if copies else _features(subject, layer, points)
            for points in (hidden_points, images, *around)
        ]
        features = torch.stack(shown, 1)
    logits = reduced(outputs, subject.labels) if subject.pipeline.rejects else outputs
    top = logits.scatter(1, subject.labels[:, None], -torch.inf)
    scale = (logits.gather(1, subject.labels[:, None]).squeeze(1) - top.amax(1)).double()
    scale = scale.clamp_min(1e-3 * float(scale.amax().clamp_min(torch.finfo(torch.float32).tiny)))
    values = -torch.ones(features.shape[:2], dtype=torch.float64, device=images.device)
    values[:, 0] = REACH
    lift = torch.cat([features.double(), torch.ones_like(features[..., :1]).double()], 2)
    solution = (torch.linalg.pinv(lift) @ (values * scale[:, None])[..., None]).squeeze(2)
    readout = Readout(
        layer=layer,
        clean=images,
        weight=solution[:, :-1].to(images.dtype),
        offset=solution[:, -1].to(images.dtype),
        labels=subject.labels,
        hidden=top.argmax(1),
        others=-3 * scale.to(images.dtype),
        threat=threat,
        columns=columns,
        images=copies,
    )
    return readout, hidden_points


def _far(images: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    """A random point on the surface of the ball, inside the box."""
    noise = draws.normal(images.shape[1:], 3, images.dtype)
    if threat.norm == "L1":
        size = noise.flatten(1).abs().sum(1).view(-1, *[1] * (images.dim() - 1))
        return project(images + threat.eps * noise / size, images, threat)
    return project(images + threat.eps * steepest(noise, threat.norm), images, threat)


def _apart(subject: Subject) -> Subject:
    """Only samples whose balls do not overlap, so that a point belongs to one sample."""
    chosen: list[int] = []
    for row in range(len(subject.labels)):
        others = subject.images[chosen]
        gaps = distance(others, subject.images[row].expand_as(others), subject.threat.norm) if chosen else None
        if gaps is None or float(gaps.min()) > 2 * subject.threat.eps:
            chosen.append(row)
    return subject.of(torch.tensor(chosen, dtype=torch.int64, device=subject.labels.device))


def _last_layer(subject: Subject, outputs: Tensor) -> tuple[nn.Module, int]:
    """The last linear layer that runs once per pass with a row per image, else the undefended model, and its number of outputs.

    Raises NoReadoutError where there is neither.
    """
    calls: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((layer, tuple(given[0].shape), tuple(output.shape)))

    linear = [module for module in subject.pipeline.modules() if _plain(module)]
    handles = [module.register_forward_hook(note) for module in linear]
    try:
        subject.pipeline(subject.images)
    finally:
        for handle in handles:
            handle.remove()
    wanted, classes = len(subject.labels), outputs.shape[1] - subject.pipeline.rejects
    once = [call for call in calls if sum(other[0] is call[0] for other in calls) == 1]
    for layer, given, output in reversed(once):
        if len(given) == 2 and given[0] == wanted and output == (wanted, classes):
            return layer, classes
    twin = subject.pipeline.twin
    if twin is None or not any(module is twin for module in subject.pipeline.modules()):
        raise NoReadoutError(
            "No linear layer outputs the classes: nothing can be planted without replacing what is tested."
        )
    return twin, classes


def _plain(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing else: replacing one that does more would remove what hides the gradient."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward and not hooks


def _features(subject: Subject, layer: nn.Module, points: Tensor) -> Tensor:
    """The input features of the layer, (N, F)."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, given, output: seen.append(given[0].flatten(1)))
    try:
        subject.pipeline(points)
    finally:
        handle.remove()
    return seen[-1]
