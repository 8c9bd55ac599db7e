"""`gauntlet.evaluate`: one model in memory against attacks, with the same runner, verifier and store as the benchmark."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.bench.config.schema import PRECISIONS, Config, DataRef, Group, ModelRef
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.in_memory import from_arrays, from_dataset
from gauntlet.bench.environment.device import choose_device
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.bench.models.parts.class_list import ListedClass, class_file, listed, listed_classes, read_class_list
from gauntlet.bench.models.parts.classifier import Classifier, check_model
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.models.parts.outputs import Output
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.prepare.subset_labels import in_subset, restricted
from gauntlet.bench.registries import DEFENSES, REPLAYS
from gauntlet.bench.registry.live_code import live_digest
from gauntlet.bench.registry.registry import Registry
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.evaluation import Evaluation, collect
from gauntlet.bench.run.in_memory import run_in_memory
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.profile import is_differentiable, is_randomised
from gauntlet.leaderboard.gate.conditions import CHECKS
from gauntlet.leaderboard.report.notes import phrased

_MEMORY = "memory:model"
_NOWHERE = os.devnull
"""In place of a results folder: nothing is read there, and nothing can be written."""


@exits_reported()
def evaluate(
    model: nn.Module,
    images: Any,
    labels: Any = None,
    *,
    threat: str | ThreatModel = "Linf:8/255",
    attacks: str | Sequence[str] = "standard",
    defense: str | nn.Module | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,  # noqa: A002
    checks: str = "default",
    batch_size: int | None = None,
    store: str | Path | None = None,
    randomised: bool = False,
    not_differentiable: bool = False,
    logits: str | None = None,
    binary: bool = False,
    classes: str | Path | Sequence[int | str] | None = None,
) -> Evaluation:
    """Attack a classifier on images it is given, and count what survives every attack.

    `model`: any module in eval mode that takes images in [0, 1] and returns logits (N, K), as a tensor, or as a tuple,
    a dict or an object with `.logits` that holds them; `logits` names another entry, attribute or place, and `binary` says
    that the model returns one logit for two classes, positive for class 1. `images` (N, C, H, W) in [0, 1] and `labels`
    (N,): tensors or arrays; or a Dataset, a DataLoader or a `Data` as `images` alone. `threat`: a threat model or its text,
    with `:target=3`, `:target=next` or `:target=random` for attacks towards that class, the one after the label, or one
    drawn for each sample. `attacks`: a suite, an attack or a list, with settings as `"pgd(steps=100, restarts=5)"`.
    `defense`: a registered name, or a module from images to images, whose differentiability and randomness are
    measured. `device`: `auto` takes a GPU where there is one, and works on a copy of the model if it lies elsewhere.
    `precision`: the form of the model that native attacks see, `auto` (a faster one where it pays), `float32` (the
    model as it is), `bfloat16` or, on CUDA, `tf32` and `float16`; what they find is always verified on the model itself
    (docs/attacks.md). `compile`: have `torch.compile` compile that form where this is measured to be faster.
    `checks` of what attacks can be fooled by (docs/checks.md): `default`, `all`, also those that run attacks of their own, or
    `none`. `randomised`, `not_differentiable`: declare that the model answers the same image differently, or that autograd
    gives no useful gradient; undeclared, this is measured. `classes`: the classes that the model may predict, a file or
    a list of indices or names; labels are mapped. `store`: a results folder; what it holds of this model, data and
    settings is not run again. Without one, no file is written.

    Raises ValueError for bad arguments and models, LookupError for unknown names, and `CellFailedError` where an attack failed
    (what was computed before is then in the store). A certificate that fails beside attacks is a flag.
    """
    if batch_size is not None:
        whole_number("batch_size", batch_size, least=1)
    one_of("precision", precision, PRECISIONS)
    one_of("checks", checks, CHECKS)
    if torch.is_inference_mode_enabled():
        raise ValueError("evaluate needs gradients: call it outside torch.inference_mode()")
    parsed, data = ThreatModel.parse(threat), _data(images, labels)
    target = choose_device(device)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {type(model).__name__}: give a torch.nn.Module, a function wrapped in one")
    output = Output(logits, binary)
    named, label_kind = _listed(classes)
    if isinstance(model, Classifier) and output not in (Output(), model.output):
        raise ValueError(
            f"logits={logits!r}, binary={binary!r}: the model is loaded already, so give them to load_model"
        )
    if isinstance(model, Classifier) and named:
        raise ValueError(f"classes={classes!r}: the model is loaded already, so give them to load_model")
    classifier = model if isinstance(model, Classifier) else Classifier(model, output=output, listed=named)
    if any(tensor.device != target for tensor in (*classifier.parameters(), *classifier.buffers())):
        classifier = copy.deepcopy(classifier).to(target)
    if classifier.listed:
        subset = restricted(classifier, data, target)
        spec = f"{data.spec or data.name}[{len(subset.indices)} classes]"
        data = replace(in_subset(data, subset, label_kind), spec=spec)
    model_ref = ModelRef(
        f"{_MEMORY}.{type(model).__name__}",
        randomised=randomised or None,
        not_differentiable=not_differentiable or None,
        logits=classifier.output.key,
        binary=classifier.output.binary or None,
    )
    # Before any pass, which may change what attributes hold.
    loaded = _loaded(model_ref, classifier, model)
    with torch.random.fork_rng():
        try:
            flags = check_model(classifier, data.images[:64].to(target), data.labels[:64], classes=data.classes)
        except ModelError as error:
            raise ModelError(phrased(str(error), "python")) from error
        if parsed.target:
            with torch.no_grad():
                parsed.targets(data.labels, classifier(data.images[:1].to(target)).shape[1], data.ids)
    name, extra, transform_digest = _defense(defense, data, target)
    data_ref = DataRef(data.spec or data.name)
    text = str(parsed)
    chosen = (attacks,) if isinstance(attacks, str) else tuple(attacks)
    group = Group((model_ref,), (name,), _split(chosen), (text,), data_ref)
    config = Config(
        (group,),
        seed=seed,
        device=str(target),
        batch_size=batch_size,
        precision=precision,
        compile=compile,
        checks=checks,
        out=Path(store or _NOWHERE),
    )
    plan = make_plan(config, extra)
    if all(cell.info.corrupts for cell in plan.cells):
        raise ValueError(f"attacks={attacks!r} has corruptions only, which are no attacks: add one, such as standard")
    with ExitStack() as stack:
        # Replays take what earlier cells stored.
        replays = any(cell.attack.name in REPLAYS for cell in plan.cells)
        if replays and not store:
            config = replace(config, out=Path(stack.enter_context(TemporaryDirectory(prefix="gauntlet-"))))
        kept = replays or bool(store)
        engine = Engine(plan, config, command="gauntlet.evaluate(…)", dry=not kept)
        engine.workbench.put_data(data_ref, data)
        engine.workbench.put_model(model_ref, loaded)
        engine.workbench.put_flags(model_ref, data_ref, flags)
        for key in extra.names():
            engine.workbench.put_defense(key, extra.get(key), transform_digest)
        results = [
            engine.cell(cell) if kept else run_in_memory(engine.workbench, cell, engine.settings) for cell in plan.cells
        ]
        stored = [engine.run.result(cell, adversarial=True) for cell in plan.cells] if kept else results
        return collect(results, stored, data, text, checks=checks, run=engine.run)


def _listed(classes: str | Path | Sequence[int | str] | None) -> tuple[tuple[ListedClass, ...], str | None]:
    """The classes that the model may predict, and what the labels of the data are."""
    if classes is None:
        return (), None
    if isinstance(classes, str | Path):
        path, labels = class_file(str(classes))
        return read_class_list(path), labels
    return listed_classes([listed(one) for one in classes], f"classes={classes!r}"), None


def _split(attacks: Sequence[str]) -> tuple[str, ...]:
    from gauntlet.attacks.registry.settings import split_list

    return tuple(part for one in attacks for part in split_list(one))


def _data(images: Any, labels: Any) -> Data:
    if isinstance(images, Data):
        return images
    if labels is None:
        if isinstance(images, Tensor | np.ndarray):
            raise ValueError("labels are missing: give evaluate(model, images, labels), or a Dataset or DataLoader")
        return from_dataset(images)
    return from_arrays(images, labels)


def _loaded(ref: ModelRef, classifier: Classifier, model: nn.Module) -> LoadedModel:
    return LoadedModel(
        name=type(model).__name__,
        module=classifier,
        spec=ref.spec,
        weights=None,
        digest=model_digest(classifier),
        source_digest=_source(model),
    )


def _source(module: nn.Module) -> str:
    """What is known of a module beside its weights: its structure, its code, and what its attributes hold."""
    return f"{module!r}\n{live_digest({'module': module})}"


def _defense(
    defense: str | nn.Module | None, data: Data, device: torch.device
) -> tuple[str, Registry[DefenseEntry], str]:
    """The defense's name, the entry of a module that is not registered, and that module's digest."""
    extra: Registry[DefenseEntry] = Registry("defense")
    if defense is None:
        return "none", extra, ""
    if isinstance(defense, str):
        return defense, extra, ""
    name = type(defense).__name__
    while name in DEFENSES:
        name += "_"
    few = data.images[:8].to(device)
    moved = copy.deepcopy(defense).to(device).eval()
    card = DefenseCard(
        name=name,
        summary="a module given to evaluate",
        source="measured, not declared",
        differentiable=is_differentiable(moved, few),
        randomised=is_randomised(moved, few),
    )
    extra.register(name, DefenseEntry(card, lambda: moved))
    return name, extra, f"{model_digest(defense)} {_source(defense)}"
