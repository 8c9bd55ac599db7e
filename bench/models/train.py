"""Training of any model on any data by a published recipe, and of the embedded zoo's models again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import one_of
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.lazy_images import Images
from gauntlet.bench.environment.device import choose_device
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.files.load_state import file_sha256
from gauntlet.bench.models.load_model import LoadedModel, load_model
from gauntlet.bench.models.parts.classifier import check_model
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.checkpoint import Checkpoint
from gauntlet.defenses.training.holdout import Accuracy, hold_out, measure
from gauntlet.defenses.training.loop import FitResult, Precision, Progress, check_training, fit
from gauntlet.defenses.training.recipe import Recipe
from gauntlet.leaderboard.results.atomic_files import check_writable, replace_bytes, replace_file

PRECISIONS = ("auto", "float32", "bfloat16")
SAMPLE = 1000
"""Largest number of samples for the accuracies that are reported at the end."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The settings of a training run."""

    recipe: Recipe
    model: str
    """A model as `load_model` takes it; for a model of the zoo, its network with fresh weights."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Normalisation per channel, for a model that does not normalise its input itself."""
    data: str
    """Training data as `load_data` takes it."""
    threat: ThreatModel
    out: Path
    """File of the weights, as safetensors; the checkpoint is beside it until the training ends."""
    name: str = ""
    """Name of the model in the file's metadata; default: `model`."""
    test: str | None = None
    """Data for the reported test accuracy; default: the held-out samples, if there are any."""
    seed: int = 0
    hold_out: float = 0.0
    """Share of every class that is held out to choose the best epoch; 0 for none."""
    precision: str = "float32"
    """`float32`, `bfloat16` (autocast), or `auto`: bfloat16 on GPUs that support it."""
    device: str = "cpu"
    threads: int | None = None
    """Number of CPU threads, which determines the order of sums and thus the weights; None for torch's default."""
    resume: bool = False
    """Whether to continue from the checkpoint of an interrupted training, if there is one."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run. The gap between `train` and `test` under attack is robust overfitting."""

    path: Path
    sha256: str
    fitted: FitResult
    train: Accuracy
    """Accuracy on a sample of the training data."""
    test: Accuracy | None
    """Accuracy on a sample of `test_name`; None without test data and held-out samples."""
    test_name: str


def zoo_job(name: str, *, seed: int, out: Path, epochs: int | None = None, resume: bool = False) -> TrainingJob:
    """The settings that train a model of the zoo again, on one CPU thread.

    `epochs` overrides the recipe's number, for a short trial. Raises LookupError for an unknown name, and ValueError for a
    model without a recipe.
    """
    entry = MODELS.get(name)
    recipe = RECIPES.get(entry.card.recipe)
    if recipe is None:
        zoo = ", ".join(MODELS.names("cnn.*"))
        raise ValueError(f"model {name!r} has no recipe: the models of the zoo are {zoo}")
    return TrainingJob(
        recipe=recipe if epochs is None else replace(recipe, epochs=epochs),
        model=name,
        name=name,
        data=f"{entry.card.data}-train",
        test=entry.card.data,
        threat=ThreatModel.parse(entry.card.claim_threat),
        seed=seed,
        out=out,
        threads=1,
        resume=resume,
    )


def train(job: TrainingJob, *, progress: Progress | None = None) -> TrainResult:
    """Train, write the weights, and measure accuracy on training and test samples, clean and under PGD of 10 steps.

    The same job gives the same bytes on the same machine, also after a resume. The file is written atomically at the end: a
    failure leaves an existing file unchanged. Settings are checked before the training: raises LookupError for an unknown
    name, ValueError for settings, data or a model that do not fit, and WriteError if `out` cannot be written.
    """
    checkpoint = _places(job)
    device = choose_device(job.device)
    precision = _precision(job.precision, device)
    data = load_data(job.data)
    rows, out = torch.arange(len(data)), torch.arange(0)
    if job.hold_out:
        rows, out = hold_out(data.labels, job.hold_out, job.seed)
    test = load_data(job.test) if job.test else None
    check_training(data.images[rows], data.labels[rows], job.recipe, job.threat)
    with _reproducible(job, device):
        loaded = _fresh(job, device)
        check_model(loaded.module.eval(), data.images[:8].to(device), data.labels, data.classes)
        bare = job.recipe.layers and job.mean is None and job.std is None
        model = loaded.module.model if bare else loaded.module
        fitted = fit(
            model,
            data.images[rows],
            data.labels[rows],
            job.recipe,
            threat=job.threat,
            seed=job.seed,
            held_out=(data.images[out], data.labels[out]) if len(out) else None,
            precision=precision,
            checkpoint=Checkpoint(checkpoint, replace_file),
            progress=progress,
        )

        def accuracy(images: Tensor | Images, labels: Tensor) -> Accuracy:
            some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(job.seed))[:SAMPLE]
            return measure(model, images[some], labels[some], job.threat, seed=job.seed, device=device)

        seen = accuracy(data.images[rows], data.labels[rows])
        unseen = None
        if test is not None:
            unseen = accuracy(test.images, test.labels)
        elif len(out):
            unseen = accuracy(data.images[out], data.labels[out])
    _write(job, loaded.module.model)
    checkpoint.unlink()
    return TrainResult(job.out, file_sha256(job.out), fitted, seen, unseen, job.test or "held-out samples")


def _places(job: TrainingJob) -> Path:
    """The path of the checkpoint; raises if `out` could not be written at the end."""
    if job.out.is_dir():
        raise IsADirectoryError(
            f"out={str(job.out)!r} is a folder: name a file, for instance {job.out / 'w.safetensors'}"
        )
    if job.out.suffix != ".safetensors":
        raise ValueError(f"out={str(job.out)!r} must end in .safetensors, the format that is written")
    checkpoint = job.out.with_name(f"{job.out.name}.checkpoint")
    if checkpoint.exists() and not job.resume:
        raise ValueError(
            f"{str(checkpoint)!r} is of an interrupted training: continue it with --resume, or delete it to start again"
        )
    check_writable(job.out)
    return checkpoint


def _precision(name: str, device: torch.device) -> Precision:
    one_of("precision", name, PRECISIONS)
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if name == "bfloat16" or (name == "auto" and fast) else "float32"


def _fresh(job: TrainingJob, device: torch.device) -> LoadedModel:
    network = MODELS.get(job.model).source if job.model in MODELS else ""
    return load_model(network or job.model, mean=job.mean, std=job.std, device=str(device))


@contextmanager
def _reproducible(job: TrainingJob, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators with the job's seed, and compute deterministically, within the context."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(job.threads or threads)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(job.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = flags


def _write(job: TrainingJob, model: nn.Module) -> None:
    # One entry only: several are written in a random order, and the file's sha256 would differ each time.
    made = f"{job.name or job.model}, recipe {job.recipe.name}, {job.recipe.epochs} epochs, seed {job.seed}"
    # Clones, since safetensors refuses tensors that share memory.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    replace_bytes(job.out, save(state, metadata={"gauntlet": made}))
