"""Planting an example in the ball of each sample, by a readout in place of the pipeline's last linear layer.

Departures from the paper (`gauntlet.bench.checks.readout`): the readout is the least-norm fit in closed form instead of being
trained; at the clean image it has the logits of the layer, and as many classes. Of a randomised pipeline, or one that looks
at several copies of an image, it fits several draws of each point. Behind a declared defense the undefended model may be
replaced as a whole, by a readout of the images that reach it. A network without a layer that can be replaced is left alone:
in its place a readout would replace what hides the gradient too, and finding the example would show nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.norms import project, random_point, steepest
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.checks.readout import NoReadoutError, Place, Readout
from gauntlet.bench.checks.subject import Subject
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.module_outputs import recorded_outputs
from gauntlet.defenses.pipeline.profile import pass_over, pipeline_profile

AROUND = 15
"""Number of random points of the ball that keep the label, as the clean image does."""
REACH = 0.5
"""Margin of the planted point beyond the boundary, as a share of the clean margin."""
DRAWS = 16
"""Number of draws or copies of the planted point, and of the clean image, that a readout fits where there are several."""
RIDGE = 1e-2
"""Weight of the norm in a fit of several draws, as a share of the mean square of the features: noise is not to be fitted."""
_LINEAR: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def plant_examples(subject: Subject) -> tuple[Readout, Tensor]:
    """Build the readout for the subject's samples, and the planted points (N, C, H, W). Raises NoReadoutError."""
    images, labels, threat = subject.images, subject.labels, subject.threat
    draws = subject.draws("planted example")
    hidden_points = _far(images, threat, draws)
    around = [random_point(images, threat, draws.at(step=torch.full_like(draws.step, i + 1))) for i in range(AROUND)]
    with guarded(subject.pipeline, 0), torch.no_grad():
        place = _place(subject)
        shown = [_features(subject, place, points, DRAWS) for points in (hidden_points, images)]
        shown += [_features(subject, place, points, 1) for points in around]
        logits = _outputs(subject, place)
    top = logits.scatter(1, labels[:, None], -torch.inf)
    own, other = logits.gather(1, labels[:, None]).squeeze(1).double(), top.amax(1).double()
    scale = own - other
    scale = scale.clamp_min(1e-3 * float(scale.amax().clamp_min(torch.finfo(torch.float32).tiny)))
    features = torch.cat(shown, 1).double()
    values = -torch.ones(features.shape[:2], dtype=torch.float64, device=images.device)
    values[:, : shown[0].shape[1]] = REACH
    weight, offset = _fit(features, values * scale[:, None], several=shown[0].shape[1] > 1)
    middle = (own + other) / 2
    readout = Readout(
        place=place,
        clean=images,
        weight=weight.to(images.dtype),
        offset=offset.to(images.dtype),
        middle=middle.to(images.dtype),
        labels=labels,
        hidden=top.argmax(1),
        others=(middle - 3 * scale).to(images.dtype),
        threat=threat,
    )
    return readout, hidden_points


def _fit(features: Tensor, values: Tensor, *, several: bool) -> tuple[Tensor, Tensor]:
    """The linear functions (N, F) with offsets (N,) of the features (N, P, F) that have the values (N, P)."""
    lift = torch.cat([features, torch.ones_like(features[..., :1])], 2)
    if not several:
        solution = (torch.linalg.pinv(lift) @ values[..., None]).squeeze(2)
        return solution[:, :-1], solution[:, -1]
    # In the space of points, of which there are fewer than features as a rule.
    gram = lift @ lift.mT
    size = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)
    dual = torch.linalg.solve(gram + size[:, None, None] * torch.eye(gram.shape[1]).to(gram), values[..., None])
    solution = (lift.mT @ dual).squeeze(2)
    return solution[:, :-1], solution[:, -1]


def _far(images: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    """A random point on the surface of the ball, inside the box."""
    noise = draws.normal(images.shape[1:], 3, images.dtype)
    if threat.norm == "L1":
        size = noise.flatten(1).abs().sum(1).view(-1, *[1] * (images.dim() - 1))
        return project(images + threat.eps * noise / size, images, threat)
    return project(images + threat.eps * steepest(noise, threat.norm), images, threat)


def _place(subject: Subject) -> Place:
    """The last plain linear layer that answers with the classes for each image, or for copies of it; else the undefended model.

    Raises NoReadoutError where there is neither.
    """
    pipeline, count = subject.pipeline, len(subject.labels)
    classes = _pass(subject, subject.images, 0).shape[1] - pipeline.rejects
    layers = {path: layer for path, layer in pipeline.named_modules() if _plain(layer)}
    with recorded_outputs(pipeline, subject.images, list(layers)) as seen:
        _pass(subject, subject.images, 0)
    for path, outputs in reversed(seen.items()):
        rows = sum(len(output) for output in outputs)
        if rows % count or any(output[0].numel() != classes for output in outputs):
            continue
        if len(outputs) > 1 and any(len(output) != count for output in outputs):
            continue
        layer, copies = layers[path], rows // count
        if copies == 1 or len(outputs) > 1:
            return Place(layer, classes)
        if (interleaved := _interleaved(subject, layer, copies)) is not None:
            return Place(layer, classes, interleaved)
    twin = pipeline.twin
    if twin is None or not any(module is twin for module in pipeline.modules()):
        raise NoReadoutError(
            "No linear layer outputs the classes: nothing can be planted without replacing what is tested."
        )
    bare = DefendedModel(twin, differentiable=True, randomised=False)
    profile = pipeline_profile(bare, subject.images, subject.labels)
    if profile.gradients != "useful" or profile.intercepted:
        raise NoReadoutError("The undefended model hides gradients itself: replacing it would replace what is tested.")
    return Place(twin, classes, images=isinstance(pipeline.transform, nn.Identity))


def _plain(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing else: replacing one that does more would remove what hides the gradient."""
    kind = next((kind for kind in _LINEAR if isinstance(module, kind)), None)
    hooks = module._forward_hooks or module._forward_pre_hooks
    return kind is not None and type(module).forward is kind.forward and not hooks


def _interleaved(subject: Subject, layer: nn.Module, copies: int) -> bool | None:
    """Whether the rows of an image stand side by side: those that change with the first image; None if they do neither."""
    count = len(subject.labels)
    other = torch.cat([subject.images[1:2], subject.images[1:]])
    before, after = (_inputs(subject, layer, images, 0)[0][0].flatten(1) for images in (subject.images, other))
    changed = (before != after).any(1).nonzero().squeeze(1).tolist()
    if changed == list(range(copies)):
        return True
    return False if changed == list(range(0, copies * count, count)) else None


def _features(subject: Subject, place: Place, points: Tensor, most: int) -> Tensor:
    """The inputs of the layer in passes over points (N, C, H, W): at most so many draws and copies of each, (N, P, F)."""
    if place.images:
        return points.flatten(1)[:, None]
    return _by_image(subject, place, points, most, 0)


def _outputs(subject: Subject, place: Place) -> Tensor:
    """The mean output of the layer at the images, (N, columns)."""
    return _by_image(subject, place, subject.images, DRAWS, 1).mean(1)


def _by_image(subject: Subject, place: Place, points: Tensor, most: int, side: int) -> Tensor:
    """Inputs (`side` 0) or outputs (1) of the layer, (N, P, F)."""
    found: list[Tensor] = []
    for number in range(most if subject.randomised else 1):
        rows = torch.cat([call[side].flatten(1) for call in _inputs(subject, place.layer, points, number)])
        if len(rows) % len(points):
            raise NoReadoutError("The rows of the last linear layer do not belong to single images.")
        if place.interleaved:
            found.append(rows.view(len(points), -1, rows.shape[1]))
        else:
            found.append(rows.view(-1, len(points), rows.shape[1]).transpose(0, 1))
        if sum(one.shape[1] for one in found) >= most:
            break
    return torch.cat(found, 1)[:, :most]


def _inputs(subject: Subject, layer: nn.Module, points: Tensor, number: int) -> list[tuple[Tensor, Tensor]]:
    """What the layer is given and what it answers in each call of a pass."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda module, given, output: seen.append((given[0], output)))
    try:
        _pass(subject, points, number)
    finally:
        handle.remove()
    return seen


def _pass(subject: Subject, points: Tensor, number: int) -> Tensor:
    with guarded(nn.Module(), number):
        return pass_over(subject.pipeline, points, number)
