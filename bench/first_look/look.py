"""A minute's look at a model before anything is attacked: what it takes and answers, what it hides, and what to run next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from gauntlet.attacks.views.guard import generators_from
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.first_look.answers import class_lines, hidden_lines
from gauntlet.bench.first_look.input_format import input_lines, with_format
from gauntlet.bench.first_look.line import STATES, Line, State
from gauntlet.bench.first_look.passes import pass_lines
from gauntlet.bench.first_look.seen import data_images, random_images
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.models.parts.errors import MissingFileError
from gauntlet.bench.prepare.loader import Loader
from gauntlet.bench.registries import DATA, DEFENSES
from gauntlet.bench.registry.import_file import ImportSpecError
from gauntlet.defenses.pipeline.defended_model import defend


@dataclass(frozen=True)
class Look:
    """What was seen. `model`: as named, with the settings that it turned out to need; `data`: None for random images."""

    lines: tuple[Line, ...]
    model: ModelRef
    data: DataRef | None
    n: int = 0
    """Number of samples of the data."""
    pixels: int = 0
    """Height times width of an image of the data; 0 for random images."""
    misnamed: bool = False
    """Whether the problem is a name or a file that does not exist: the command is wrong, not the model."""
    image_seconds: float = 0.0
    """Seconds of a pass forward and back for an image; 0 if it was not measured."""

    @property
    def state(self) -> State:
        """The worst of the lines."""
        return max((line.state for line in self.lines), key=STATES.index)


Tell = Callable[[Line], None]
"""Called with each line as soon as it is known."""


def look(model: ModelRef, data: DataRef | None, device: torch.device, tell: Tell = lambda line: None) -> Look:
    """Load a model and measure it on a few images of the data; without data, on random images, and less is known.

    Nothing is attacked, and no file is written. A failure is a line, and the last one. A black box is asked as little as a run
    would.
    """
    glance = _Glance(Look((), model, data), device)
    with generators_from(0):
        for line in glance.guarded_lines():
            glance.found = replace(glance.found, lines=(*glance.found.lines, line))
            tell(line)
    return glance.found


class _Glance:
    """A look in progress: `found` so far, and the `topic` that a failure would belong to."""

    def __init__(self, found: Look, device: torch.device) -> None:
        self.found, self.device, self.topic = found, device, "loads"

    def guarded_lines(self) -> Iterator[Line]:
        """The lines; a failure is the last one."""
        try:
            yield from self.lines()
        except Exception as error:  # code of the user's, which may raise anything
            # Exactly LookupError, as registries raise it: a KeyError may come from the model's code.
            missing = isinstance(error, FileNotFoundError | ImportSpecError | MissingFileError)
            self.found = replace(self.found, misnamed=missing or type(error) is LookupError)
            yield Line(self.topic, _sentence(error), "problem")

    def lines(self) -> Iterator[Line]:
        """The lines, each when it is known."""
        loader = Loader(self.device)
        loaded = loader.model(self.found.model)
        yield _loads(loaded, self.device)
        for note in loaded.notes:
            yield Line("", note)
        for flag in loaded.module.remarks:
            yield Line("", flag.message, "note")
        self.topic = "data"
        ref = self.found.data or _card_data(loaded)
        if ref is None:
            seen = random_images(loaded, self.device)
            yield Line("data", f"none named: {len(seen.images)} random images; --data DATA shows more", "note")
        else:
            seen = data_images(loader, ref, self.found.model)
            self.found = replace(self.found, data=ref, n=seen.n, pixels=seen.images[0, 0].numel())
            yield Line("data", f"{ref.spec}: {len(seen.images)} of {seen.n:,} images, {seen.classes} classes")
        self.topic = "input"
        lines, better = input_lines(loaded.module, seen)
        yield from lines
        if better is not None:
            self.found = replace(self.found, model=with_format(self.found.model, better))
            loaded = loader.model(self.found.model)
        self.topic = "classes"
        yield from class_lines(loaded, seen)
        if model_access(loaded.module) != "white-box":
            yield Line("gradients", "a black box: attacks search by its answers (square, hop_skip_jump)", "note")
            return
        self.topic = "gradients"
        model = self.found.model
        pipeline = defend(loaded.module, DEFENSES.get("none")).to(self.device).eval()
        pipeline.randomised, pipeline.opaque = bool(model.randomised), bool(model.not_differentiable)
        yield from hidden_lines(pipeline, seen)
        self.found = replace(self.found, model=replace(model, randomised=pipeline.randomised or None))
        self.topic = "pass"
        lines, seconds = pass_lines(pipeline, seen)
        yield from lines
        self.found = replace(self.found, image_seconds=seconds)


def _loads(loaded: LoadedModel, device: torch.device) -> Line:
    network = loaded.module.model
    parameters = list(network.parameters())
    kinds = sorted({str(one.dtype).removeprefix("torch.") for one in parameters})
    size = f", {sum(one.numel() for one in parameters):,} parameters in {' and '.join(kinds)}" if parameters else ""
    weights = f", weights of {loaded.weights}" if loaded.weights else ""
    return Line("loads", f"{type(network).__name__}{size}{weights}, on {device}")


def _card_data(loaded: LoadedModel) -> DataRef | None:
    """The data that the claims of a registered model are about."""
    known = loaded.spec in MODELS and loaded.card is not None and loaded.card.data in DATA
    return DataRef(loaded.card.data) if known and loaded.card is not None else None


def _sentence(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, LookupError) and error.args else error).strip()
    named = isinstance(error, ValueError | LookupError | FileNotFoundError) and text
    return text if named else f"{type(error).__name__}: {text}"
