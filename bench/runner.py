"""Running one cell: attack what the store does not hold, verify, record, store block by block."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from gauntlet.attacks.cascade import Cascade
from gauntlet.attacks.lighter import full_float32
from gauntlet.attacks.rule import Rule
from gauntlet.attacks.solver import Meter, Outcome, Task
from gauntlet.bench.device import peak_memory, synchronised_time
from gauntlet.bench.examine import Clean, block_record, examine_clean
from gauntlet.bench.finishing import solve_lighter
from gauntlet.bench.plan import Cell
from gauntlet.bench.provenance import provenance
from gauntlet.bench.verifier import Verifier
from gauntlet.bench.whole import run_whole
from gauntlet.bench.workbench import Block, Prepared
from gauntlet.leaderboard.record import CellError, CellResult, Record, Stats
from gauntlet.leaderboard.store import Store, StoreError

Progress = Callable[[int], None]
"""Called with the number of samples that have just been finished."""


class StoredResultError(RuntimeError):
    """What the store holds for these keys is not what the model now answers, or what the attack now gives."""


@dataclass(frozen=True)
class Settings:
    """How to run cells, none of which changes their outcome."""

    device: torch.device
    batch_size: int | None = None
    """None: by the size of an image."""
    fresh: bool = False
    keep_adversarials: bool = True

    def slots(self, image: torch.Tensor) -> int:
        """Samples attacked at once, for images like this (C, H, W): about a million pixels, 32 samples at least.

        At most 1,024 on a GPU; on a CPU 384, beyond which small networks fall out of its caches.
        """
        most = 1024 if self.device.type == "cuda" else 384
        return self.batch_size or max(32, min(most, 2**20 // image.numel()))


def run_cell(prepared: Prepared, store: Store, settings: Settings, progress: Progress | None = None) -> CellResult:
    """Run what is missing of a cell, store it, and return all of it.

    An exception of the model, the attack or the verifier becomes the result's error, stored beside what was finished;
    StoreError and KeyboardInterrupt go to the caller.
    """
    cell, tell = prepared.cell, progress or (lambda count: None)
    known = {} if settings.fresh else {b.key: store.read(b.key) for b in prepared.blocks if store.has(b.key)}
    found = {key: replace(record, cached=True) for key, record in known.items()}
    tell(sum(len(record.samples) for record in found.values()))
    missing = [block for block in prepared.blocks if block.key not in found]
    error = None
    try:
        _check_hit(prepared, found, settings)
        if missing:
            # Closed on every way out, so that the model and the global generator are at once as they were.
            with closing(_attack(prepared, missing, settings)) as records:
                for attacked in records:
                    record = attacked if settings.keep_adversarials else _without_examples(attacked)
                    if not store.write(record):
                        _check_same(record, store.read(record.key))
                    found[record.key] = record
                    tell(len(record.samples))
        store.clear_error(cell.name)
    except StoreError:
        raise
    except Exception as exception:
        error = cell_error(cell, exception, settings.device)
        store.write_error(cell.name, error)
    ordered = tuple(found[block.key] for block in prepared.blocks if block.key in found)
    return CellResult(cell.info, ordered, error, expected=len(prepared.data.labels))


def _without_examples(record: Record) -> Record:
    nothing = [None] * len(record.samples)
    return replace(record, samples=replace(record.samples, adversarial=nothing))


def cell_error(cell: Cell, exception: Exception, device: torch.device) -> CellError:
    """The record of a failure, with the way out where it is known."""
    message = str(exception).strip() or type(exception).__name__
    if isinstance(exception, torch.cuda.OutOfMemoryError):
        message += " — try a smaller --batch-size"
    text = "".join(traceback.format_exception(exception))
    return CellError(cell.info, type(exception).__name__, message, text, provenance(device))


def _attack(prepared: Prepared, missing: Sequence[Block], settings: Settings) -> Generator[Record]:
    """Attack the samples of the missing blocks, yielding each block's record as soon as its last sample is decided."""
    data, cell = prepared.data, prepared.cell
    chosen = [index for block in missing for index in block.indices]
    images, labels = data.images[chosen].to(settings.device), data.labels[chosen].to(settings.device)
    ids = [data.ids[index] for index in chosen]
    verify = Verifier(
        prepared.defended,
        images,
        labels,
        ids,
        cell.threat,
        seed=cell.info.seed,
        minimum_norm=cell.info.minimum_norm,
        randomised=cell.info.randomised,
    )
    places, at = [], 0
    for block in missing:
        places.append(range(at, at + len(block.indices)))
        at += len(block.indices)
    with _frozen(prepared.defended, cell.info.seed):
        clean = examine_clean(verify)
        run = _run_native if isinstance(prepared.attack, Rule | Cascade) else _run_library
        for number, outcomes, stats in run(prepared, verify, clean, places, settings):
            block = missing[number]
            samples, flags = block_record(verify, clean, places[number], outcomes, cell.threat)
            yield Record(
                key=block.key,
                cell=cell.info,
                samples=samples,
                stats=replace(
                    stats,
                    candidates_rejected=sum(outcome.rejected for outcome in outcomes),
                    disagreements=sum(outcome.disagreements for outcome in outcomes),
                    widened=sum(outcome.widened > 0 for outcome in outcomes),
                    widened_passes=sum(outcome.widened for outcome in outcomes),
                ),
                flags=(*prepared.flags, *flags),
                provenance=provenance(settings.device),
                clean_logits=_clean_logits(prepared, verify, places[number], block),
            )


Finished = tuple[int, list[Outcome], Stats]
"""A finished block: its number, the outcomes of its samples that were attacked, and what they cost."""


def _run_native(
    prepared: Prepared, verify: Verifier, clean: Clean, places: Sequence[range], settings: Settings
) -> Iterator[Finished]:
    """One solve over all blocks, so that the batch stays full across them."""
    attack = prepared.attack
    assert isinstance(attack, Rule | Cascade)
    cell = prepared.cell
    rows = clean.attacked.nonzero().squeeze(1)
    where = rows.tolist()
    labels = verify.labels[rows]
    task = Task(
        verify.images[rows],
        labels,
        [verify.ids[i] for i in where],
        cell.threat,
        cell.info.seed,
        cell.attack.name,
        cell.threat.targets(labels, clean.classes) if cell.threat.target else None,
        None if clean.measured.logits is None else clean.measured.logits[rows],
    )
    block_of = [number for number, place in enumerate(places) for _ in place]
    outcomes: list[list[Outcome]] = [[] for _ in places]
    left = [0] * len(places)
    for i in where:
        left[block_of[i]] += 1
    for number in (number for number, count in enumerate(left) if count == 0):
        yield number, [], Stats(0.0, 0.0)
    meter = Meter()
    with peak_memory(settings.device) as peak:
        began, judged = synchronised_time(), verify.seconds
        for outcome in solve_lighter(
            attack if isinstance(attack, Rule) else attack.stages,
            prepared.light,
            task,
            lambda points, samples, attempt: verify(points, rows[samples], attempt),
            batch_size=settings.slots(verify.images[0]),
            verify_every=10 if cell.info.randomised else 1,
            classes=clean.classes,
            meter=meter,
        ):
            sample = where[outcome.sample]
            number = block_of[sample]
            outcomes[number].append(replace(outcome, sample=sample))
            left[number] -= 1
            if left[number] == 0:
                seconds = synchronised_time() - began - (verify.seconds - judged)
                peak.update()
                costs = Stats(seconds, peak.mib, occupancy=meter.occupancy, halved=meter.halved)
                yield number, outcomes[number], costs
                began, judged = synchronised_time(), verify.seconds


def _run_library(
    prepared: Prepared, verify: Verifier, clean: Clean, places: Sequence[range], settings: Settings
) -> Iterator[Finished]:
    """A whole attack, a block at a time: its result may depend on the batch, so the batch is always the block."""
    attack = prepared.attack
    assert not isinstance(attack, Rule | Cascade)
    for number, place in enumerate(places):
        rows = torch.tensor([i for i in place if clean.attacked[i]], dtype=torch.int64, device=settings.device)
        if not len(rows):
            yield number, [], Stats(0.0, 0.0)
            continue
        seed, labels, threat = prepared.cell.info.seed, verify.labels[rows], prepared.cell.threat
        targets = threat.targets(labels, clean.classes) if threat.target else None
        with peak_memory(settings.device) as peak:
            began = synchronised_time()
            points, forwards, backwards = run_whole(
                attack, prepared.defended.attack_view(), verify.images[rows], labels, seed, targets
            )
            seconds = synchronised_time() - began
        verdict = verify(points, rows, torch.zeros_like(rows))
        # An unmoved image is an attack that found nothing, not one that cheated.
        claimed = (points != verify.images[rows]).flatten(1).any(1)
        rejected = (verdict.rejected & claimed).tolist()
        outcomes = [
            Outcome(
                sample=sample,
                adversarial=points[i].clone() if won else None,
                forwards=forwards,
                backwards=backwards,
                rejected=int(rejected[i]),
                disagreements=int(split),
            )
            for i, (sample, won, split) in enumerate(
                zip(rows.tolist(), verdict.success.tolist(), verdict.disagreement.tolist(), strict=True)
            )
        ]
        yield number, outcomes, Stats(seconds, peak.mib)


@contextmanager
def _frozen(model: nn.Module, seed: int) -> Iterator[None]:
    """No parameter gradients, a seeded global generator for models that draw from it, and both as before afterwards."""
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        with full_float32(), torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        for parameter, needed in wanted:
            parameter.requires_grad_(needed)


def _clean_logits(prepared: Prepared, verify: Verifier, place: range, block: Block) -> np.ndarray | None:
    if block is not prepared.blocks[0] or prepared.cell.info.randomised:
        return None
    return verify.logits(verify.images[list(place)]).to(torch.float64).cpu().numpy()


def _check_hit(prepared: Prepared, found: dict[str, Record], settings: Settings) -> None:
    """The stored clean logits of the first block must be what the model answers now. Raises StoredResultError."""
    record = found.get(prepared.blocks[0].key)
    if record is None or record.clean_logits is None:
        return
    indices = list(prepared.blocks[0].indices)
    images, labels = prepared.data.images[indices].to(settings.device), prepared.data.labels[indices]
    ids = [prepared.data.ids[index] for index in indices]
    verify = Verifier(prepared.defended, images, labels.to(settings.device), ids, prepared.cell.threat, seed=0)
    now = verify.logits(images).to(torch.float64).cpu().numpy()
    scale = float(np.abs(record.clean_logits).max())
    if not np.allclose(now, record.clean_logits, rtol=0, atol=1e-3 * scale):
        raise StoredResultError(
            f"{prepared.cell.info.model} no longer answers as when its results were stored (largest difference of a clean "
            f"logit {np.abs(now - record.clean_logits).max():.3g}), although weights and source are the same: code that it "
            "imports, or a library, has changed. Use another --out folder"
        )


def _check_same(fresh: Record, stored: Record) -> None:
    """A block that was run afresh must give what is stored. Raises StoredResultError."""
    if fresh.cell.randomised:
        return
    differ = np.flatnonzero(fresh.samples.robust != stored.samples.robust)
    # A margin within rounding may fall either way on other hardware or with another number of threads.
    clear = [i for i in differ if abs(fresh.samples.margin[i]) > 1e-4 or abs(stored.samples.margin[i]) > 1e-4]
    if clear:
        raise StoredResultError(
            f"{fresh.cell.title}: {len(clear)} of {len(fresh.samples)} verdicts differ from the stored ones of the same key, "
            f"first at {fresh.samples.id[clear[0]]}: the stored block is kept; the model or the attack is not reproducible"
        )
