"""Finds the inner views of a pipeline by a few passes over a few images, with hooks on its submodules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.views.backward_modes import Backward
from gauntlet.attacks.views.fast_model import full_float32
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.interception.mode import InterceptionMode
from gauntlet.attacks.views.interception.release import release
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.inner_view import InnerOutput, InnerView, InnerViewModel, beside
from gauntlet.defenses.pipeline.module_outputs import recorded_outputs
from gauntlet.defenses.pipeline.profile import dead, pass_over

SAMPLES = 16
MOST = 16
"""Largest number of outputs of which views are made: the votes of a larger committee follow those of its first members."""
APART = 4
"""Largest number of calls of a submodule in a pass that are views of their own; of more, as of noisy copies, only the mean."""
LARGEST = 2**14
"""Most numbers for an image that are kept: what convolutions answer is no head's input."""
_LATEST = 3
_SHARE = 0.9
"""Least share of the gradient of an image's rows that the image itself must have."""


@dataclass(frozen=True)
class _Found:
    """An output to which a gradient leads, with its values (N, D) on the images."""

    output: InnerOutput
    values: Tensor


@dataclass(frozen=True)
class _Trace:
    """What a pass with gradients of one kind shows: the outputs that it leads to, in the order in which they end."""

    backward: Backward
    links: tuple[str, ...]
    answers: Tensor
    """The pipeline's own output (N, K)."""
    found: tuple[_Found, ...]
    open: bool
    """Whether a gradient leads to the pipeline's own output."""
    hidden: bool = False
    """Whether operations in the pass hide the gradient."""


def find_inner_views(pipeline: DefendedModel, images: Tensor) -> tuple[InnerView, ...]:
    """The inner views of a pipeline, the strongest first, measured on at most 16 images (N, C, H, W).

    The mean of the inner outputs with K columns whose predictions are mostly those of the pipeline, and each of them; binary
    outputs side by side where there are K of them. Where there is neither: distances to class means, of binary outputs, or of the
    features before a head without parameters. None for pipelines without hooks, as a TorchScript module.
    """
    base, few = pipeline.attack_view(), images[:SAMPLES]
    if len(few) < 2:
        return ()
    with guarded(base, 0), full_float32():
        paths = _candidates(base, few, pipeline.rejects)
        traces = [trace for trace in _traces(base, few, paths) if trace is not None] if paths else []
        if not traces:
            return ()
        # Gradients of their own are wrong where something hides them.
        hidden = any(trace.hidden for trace in traces)
        traces.sort(key=lambda trace: (trace.backward == "true") if hidden else 0)
        known = any(trace.open for trace in traces if not trace.links)
        choices = [_views(trace, pipeline.rejects, known=known) for trace in traces]
        chosen = _stopping(base, few, max(choices, key=_worth))
        own = tuple(replace(view, backward="true") for view in chosen)
        # What hides a gradient behind the outputs does not matter.
        return own if own and _same(own, choices) and _nothing_hidden(base, few, own) else chosen


def _hookable(base: nn.Module) -> Iterator[str]:
    """Submodules by qualified name, but those that take or call no hooks: within TorchScript, and where it is frozen."""
    scripted = tuple(
        f"{path}." for path, module in base.named_modules() if path and isinstance(module, torch.jit.ScriptModule)
    )
    for path, module in base.named_modules():
        if path and not path.startswith(scripted) and _takes_hooks(module):
            yield path


def _takes_hooks(module: nn.Module) -> bool:
    try:
        module.register_forward_hook(lambda *_: None).remove()
    except RuntimeError:
        return False
    return True


def _candidates(base: nn.Module, images: Tensor, rejects: bool) -> list[str]:
    """Submodules with K columns, one or two, and the latest others."""
    paths, count = list(_hookable(base)), len(images)
    with torch.no_grad(), recorded_outputs(base, images, paths, keep=_small) as seen:
        try:
            answers = _seeded(base, images)
        except Exception:
            # Code of others, which may not bear hooks.
            return []
    classes = answers.shape[1] - rejects
    width = {path: _width(outputs, count) for path, outputs in seen.items()}
    few = [path for path in seen if width[path] in (1, 2, classes)]
    own = [path for path in seen if width[path] == answers.shape[1] and torch.equal(torch.cat(seen[path]), answers)]
    modules = dict(base.named_modules())
    # A head with parameters answers, and gradients reach what is before it.
    if any(_has_parameters(modules[path]) for path in own):
        return few
    latest = [path for path in seen if width[path] > 1 and path not in own][-_LATEST:]
    return [path for path in seen if path in few or path in latest]


def _has_parameters(module: nn.Module) -> bool:
    """Parameters of its own; those of all its parts, where they call no hooks."""
    return any(True for _ in module.parameters(recurse=isinstance(module, torch.jit.ScriptModule)))


def _small(output: Tensor) -> bool:
    return output.numel() <= LARGEST * len(output)


def _width(outputs: list[Tensor], images: int) -> int:
    """The numbers of an output for each row; 0 where its rows do not belong to the images."""
    shapes = {one.shape[1:].numel() for one in outputs}
    return shapes.pop() if len(shapes) == 1 and sum(len(one) for one in outputs) % images == 0 else 0


def _seeded(base: nn.Module, images: Tensor) -> Tensor:
    with guarded(nn.Module(), 0):
        return pass_over(base, images, 0)


def _traces(base: nn.Module, images: Tensor, paths: Sequence[str]) -> Iterator[_Trace | None]:
    yield _trace(base, images, paths, "true")
    yield _trace(base, images, paths, "through")
    yield _trace(base, images, paths, "through", tuple(_hookable(base)))


def _trace(
    base: nn.Module, images: Tensor, paths: Sequence[str], backward: Backward, links: Sequence[str] = ()
) -> _Trace | None:
    x, used = images.detach().clone().requires_grad_(), list[str]()
    mode = InterceptionMode(len(images), record=True) if backward == "through" else None
    with torch.enable_grad(), mode or nullcontext():
        at = x.clone()
        with recorded_outputs(base, at, paths, links, linked=used, keep=_small) as seen:
            try:
                answers = _seeded(base, at)
            except Exception:
                # Code of others, which may raise anything on a tensor that needs a gradient.
                return None
        if mode is not None:
            seen = {path: [mode.output(one) for one in outputs] for path, outputs in seen.items()}
            answers = mode.output(answers)
    found = tuple(one for path, outputs in seen.items() for one in _of_path(path, outputs, x))
    own = _leads(answers, x)
    release(base)
    return _Trace(backward, tuple(used), answers.detach(), found, own, bool(mode is not None and mode.seen))


def _of_path(path: str, outputs: list[Tensor], x: Tensor) -> Iterator[_Found]:
    count = len(x)
    if not _width(outputs, count):
        return
    copies = sum(len(one) for one in outputs) // count
    calls = copies > 1 and all(len(one) == count for one in outputs)
    for interleaved in (False,) if calls or copies == 1 else (False, True):
        whole = InnerOutput(path, copies, interleaved)
        apart = range(copies) if calls and copies <= APART else (-1,)
        for output in (replace(whole, copy=copy) for copy in apart):
            values = output.of(outputs, count)
            if values is not None and _leads(values, x):
                yield _Found(output, values.detach())


def _leads(rows: Tensor, x: Tensor) -> bool:
    """Whether a gradient leads from rows (N, D) to most of the images, and from the row of an image to that image alone."""
    if not rows.requires_grad:
        return False
    draws = Draws.start(sample_keys(0, "inner views", ["direction"], x.device))
    values = (rows * draws.normal(rows.shape[1:], dtype=rows.dtype)).sum(1)
    try:
        (all_,) = torch.autograd.grad(values.sum(), x, retain_graph=True, allow_unused=True)
        if all_ is None or 2 * int(dead(all_).sum()) >= len(x):
            return False
        row = int((~dead(all_)).nonzero()[-1])
        (own,) = torch.autograd.grad(values[row], x, retain_graph=True)
    except (RuntimeError, TypeError):
        return False
    size = own.abs().flatten(1).sum(1)
    return bool(size[row] >= _SHARE * size.sum())


def _views(trace: _Trace, rejects: bool, *, known: bool) -> tuple[InnerView, ...]:
    """The views that a trace gives, the strongest first. `known`: whether gradients lead to the pipeline's own output."""
    answers = trace.answers[:, : trace.answers.shape[1] - rejects]
    classes, labels = answers.shape[1], answers.argmax(1)
    distinct = _distinct(trace, [trace.answers] if known else [])
    agreeing = {one.output: _agreement(one.values, labels) for one in distinct if one.values.shape[1] == classes}
    logits = sorted((one for one in agreeing if agreeing[one] >= 0), key=lambda one: -agreeing[one])[:MOST]

    def view(join: str, outputs: Sequence[InnerOutput]) -> InnerView:
        return InnerView(join, tuple(outputs), classes, trace.backward, trace.links)  # type: ignore[arg-type]

    views = [view("mean", logits)] if len(logits) > 1 else []
    views += [view("mean", [one]) for one in logits]
    binary = [one for one in distinct if one.values.shape[1] in (1, 2) and one.output not in logits]
    together = beside([one.values for one in binary]) if len(binary) > 1 else None
    if together is not None and together.shape[1] == classes and _agreement(together, labels) >= 0:
        views.append(view("beside", [one.output for one in binary]))
    if not views and together is not None:
        views.append(view("nearest", [one.output for one in binary]))
    if not views and (wide := [one for one in distinct if one.values.shape[1] > 1]):
        views.append(view("nearest", [wide[-1].output]))
    return tuple(views)


def _distinct(trace: _Trace, others: Sequence[Tensor]) -> list[_Found]:
    """Outputs with values of their own, other than `others`; of equal ones that of the outermost module."""
    kept: list[_Found] = []
    for one in reversed(trace.found):
        if not any(torch.equal(one.values, other) for other in (*others, *(found.values for found in kept))):
            kept.append(one)
    return kept[::-1]


def _agreement(values: Tensor, labels: Tensor) -> float:
    """The share of images (N,) whose largest value has the label; -1 where it is nearer to chance than to 1."""
    share = float((values.argmax(1) == labels).float().mean())
    return share if share >= (1 + 1 / values.shape[1]) / 2 else -1.0


def _worth(views: tuple[InnerView, ...]) -> tuple[int, int]:
    """Logits before distances, and of many outputs before few."""
    return sum(view.join != "nearest" for view in views), len(views)


def _same(views: tuple[InnerView, ...], choices: Sequence[tuple[InnerView, ...]]) -> bool:
    return any(tuple(replace(view, stops=False) for view in views) == choice for choice in choices)


def _nothing_hidden(base: nn.Module, images: Tensor, views: tuple[InnerView, ...]) -> bool:
    """Whether nothing hides the gradient of the first view, which has the most outputs."""
    with torch.enable_grad(), InterceptionMode(len(images), record=True) as mode:
        _parts(InnerViewModel(base, views[0]), images.detach().clone().requires_grad_().clone())
    release(base)
    return not mode.seen


def _stopping(base: nn.Module, images: Tensor, views: tuple[InnerView, ...]) -> tuple[InnerView, ...]:
    """The views, which end a pass early if that leaves the pipeline and their values as they were."""
    if not views:
        return ()
    shown = [InnerViewModel(base, replace(views[0], stops=stops)) for stops in (False, True)]
    with torch.no_grad():
        before = _seeded(base, images)
        values = [_parts(one, images) for one in shown]
        after = _seeded(base, images)
    same = torch.equal(before, after) and torch.equal(*values)
    return tuple(replace(view, stops=same) for view in views)


def _parts(model: InnerViewModel, images: Tensor) -> Tensor:
    """All numbers of a view's outputs."""
    with guarded(nn.Module(), 0):
        return torch.cat([part.flatten() for part in model.parts(images)])
