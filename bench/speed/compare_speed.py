"""`gauntlet speed`: load model and data, run the comparisons, and write the report after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.views.fast_model import choose_form
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.environment.device import choose_device
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.speed.comparisons import Comparison, choose_comparisons
from gauntlet.bench.speed.measure import Workload, torch_threads
from gauntlet.bench.speed.report import NOTE, markdown, overview, table
from gauntlet.bench.speed.rounds import ParticipantSummary, Turn, participants, rounds, summary

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SpeedConfig:
    """The settings of a speed comparison."""

    model: str
    data: str
    samples: str | None = None
    rows: tuple[str, ...] = ()
    """Patterns of names of comparisons; empty for all."""
    peers: str = "*"
    """Pattern of names of libraries."""
    rounds: int = 5
    batch_size: int = 256
    threads: int = 1
    device: str = "auto"
    linf: float = 0.15
    l2: float = 0.8


def compare_speed(setup: SpeedConfig, out: Path, progress: Progress) -> str:
    """Run the comparisons and write `speed.md` and `speed.csv` (a line per turn) to `out` after each; returns the Markdown.

    Raises ValueError for bad arguments, LookupError for unknown names.
    """
    rows = choose_comparisons(setup.rows)
    for name in ("rounds", "batch_size", "threads"):
        whole_number(name.replace("_", "-"), getattr(setup, name), 1)
    with torch_threads(setup.threads):
        return _compare(setup, rows, out, progress)


def _compare(setup: SpeedConfig, rows: Sequence[Comparison], out: Path, progress: Progress) -> str:
    work = workload(setup)
    forms = _forms(work)
    out.mkdir(parents=True, exist_ok=True)
    turns: list[Turn] = []
    done: list[tuple[Comparison, Sequence[ParticipantSummary]]] = []
    parts: list[str] = []
    text = ""
    for row in rows:
        threat = ThreatModel("Linf", setup.linf) if row.norm == "Linf" else ThreatModel("L2", setup.l2)
        entrants = participants(
            row, work, threat, forms, setup.peers, lambda spec, why: progress(f"{spec} is left out: {why}")
        )
        mine = []
        for turn in rounds(row, entrants, work, threat, setup.rounds):
            mine.append(turn)
            progress(
                f"{row.name} round {turn.seed + 1}/{setup.rounds} {turn.participant}: {turn.measured.seconds:.2f} s, "
                + (f"end to end {turn.whole.seconds:.2f} s, " if turn.whole else "")
                + f"{int(turn.measured.standing.sum())} of {work.total} standing"
            )
        turns += mine
        lines = summary(row, mine, work)
        done.append((row, lines))
        parts.append(markdown(row, lines, f"{setup.model}, {setup.data}, {threat}"))
        text = "\n".join([_head(setup, work), overview(done), "", NOTE, "", *parts])
        (out / "speed.md").write_text(text, encoding="utf-8")
        table(turns).to_csv(out / "speed.csv", index=False, lineterminator="\n")
    return text


def workload(setup: SpeedConfig) -> Workload:
    """Model and data, and the images that the model classifies correctly. Raises ValueError if there are none."""
    device = choose_device(setup.device)
    data = load_data(setup.data, samples=setup.samples)
    model: nn.Module = load_model(setup.model, device=str(device)).module.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    images, labels = data.images[:].to(device), data.labels.to(device)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(setup.batch_size)])
    right = (logits.argmax(1) == labels).nonzero().squeeze(1)
    if not len(right):
        raise ValueError(f"model {setup.model!r} is wrong on all {len(labels)} images of {setup.data!r}")
    ids = [data.ids[i] for i in right.tolist()]
    return Workload(model, images[right], labels[right], ids, logits[right], len(labels), setup.batch_size, data)


def _forms(work: Workload) -> dict[str, nn.Module]:
    """The form of the model that our attacks choose in float32, and the original model."""
    fast = choose_form(work.model, work.images[:8], precision="float32")
    return {fast.form: fast.module, "": work.model}


def _head(setup: SpeedConfig, work: Workload) -> str:
    device = torch.cuda.get_device_name(work.images.device) if work.images.is_cuda else f"{setup.threads} CPU thread(s)"
    return (
        f"# Speed beside the peers\n\n{setup.model} on {work.total} images of {setup.data}, {len(work.ids)} right when clean; "
        f"{device}, torch {torch.__version__}, batch {setup.batch_size}, {setup.rounds} round(s).\n"
    )
