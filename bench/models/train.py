"""Training: any model on any data by a published recipe, and the models of the embedded zoo again."""

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
"""On at most how many samples the accuracies are measured that are reported at the end."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training as it was asked for."""

    recipe: Recipe
    model: str
    """As `load_model` takes it; of a model of the zoo, the network with fresh weights."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """The model's normalisation, per channel, where it has none inside."""
    data: str
    """As `load_data` takes it."""
    threat: ThreatModel
    out: Path
    """The weights, as safetensors; the checkpoint lies beside them until training is done."""
    name: str = ""
    """What the file says that it is; default: the model."""
    test: str | None = None
    """Data for the accuracy that is reported; default: the held-out samples, where there are any."""
    seed: int = 0
    hold_out: float = 0.0
    """Share of every class that is not trained on, and by which the best epoch is chosen; 0 for none."""
    precision: str = "float32"
    """`float32`, `bfloat16` (autocast), or `auto`: bfloat16 on GPUs that have it."""
    device: str = "cpu"
    threads: int | None = None
    """Of the CPU, on which the order of sums, so the weights, depends; None for as many as torch uses."""
    resume: bool = False
    """Whether to go on from the checkpoint of a training that was cut off, where there is one."""


@dataclass(frozen=True)
class TrainResult:
    """What came out. The gap between `train` and `test` under attack is robust overfitting."""

    path: Path
    sha256: str
    fitted: FitResult
    train: Accuracy
    """On a sample of what was trained on."""
    test: Accuracy | None
    """On a sample of `test_name`; None where there is nothing that was not trained on."""
    test_name: str


def zoo_job(name: str, *, seed: int, out: Path, epochs: int | None = None, resume: bool = False) -> TrainingJob:
    """The training that makes a model of the zoo again, on one thread of the CPU, for which its network is small enough.

    `epochs` shortens the recipe, for trying. Raises LookupError for an unknown name, ValueError for a model that has no
    recipe.
    """
    entry = MODELS.get(name)
    recipe = RECIPES.get(entry.card.recipe)
    if recipe is None:
        zoo = ", ".join(MODELS.names("cnn.*"))
        raise ValueError(f"model {name!r} has no recipe here: the models of the zoo are {zoo}")
    return TrainingJob(
        recipe=recipe if epochs is None else replace(recipe, epochs=epochs),
        model=name,
        name=name,
        data="digits-train",
        test=entry.card.data,
        threat=ThreatModel.parse(entry.card.claim_threat),
        seed=seed,
        out=out,
        threads=1,
        resume=resume,
    )


def train(job: TrainingJob, *, progress: Progress | None = None) -> TrainResult:
    """Train, write the weights, and measure them on training and on test samples by PGD of 10 steps.

    The same job gives the same bytes on the same machine, also after a resume. The file appears whole, once training is
    done: a failure leaves an older one as it was. What is wrong is said before training: LookupError for an unknown
    name, ValueError for settings, data or a model that do not fit, WriteError where `out` cannot be written.
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
    """The checkpoint's path; raises for what could not be written in the end."""
    if job.out.is_dir():
        raise IsADirectoryError(
            f"out={str(job.out)!r} is a folder: name a file, for instance {job.out / 'w.safetensors'}"
        )
    if job.out.suffix != ".safetensors":
        raise ValueError(f"out={str(job.out)!r} must end in .safetensors, the format that is written")
    checkpoint = job.out.with_name(f"{job.out.name}.checkpoint")
    if checkpoint.exists() and not job.resume:
        raise ValueError(
            f"{str(checkpoint)!r} is of a training that was cut off: go on with it (--resume), or delete it to begin anew"
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
    """Within it torch draws from generators of the job's seed, and computes in an order that does not change."""
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
