"""Running one cell: attack what the store does not hold, verify, record, store block by block."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from gauntlet.attacks.registry.card import AnyAttack
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.views.fast_model import full_float32
from gauntlet.bench.corruptions.entries import Corruption
from gauntlet.bench.data.samples.lazy_images import MEMORY_LIMIT, image_bytes
from gauntlet.bench.environment.provenance import provenance
from gauntlet.bench.executors.certificate import Certificate, run_certificate
from gauntlet.bench.executors.corruption import run_corruption
from gauntlet.bench.executors.example_index import Replay
from gauntlet.bench.executors.native import Execute, Settings, run_library, run_native
from gauntlet.bench.executors.replay import run_replay
from gauntlet.bench.planning.plan import Cell
from gauntlet.bench.prepare.prepare import Block, Prepared
from gauntlet.bench.verify.sample_record import block_record, examine_clean
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellError, CellResult, Flag, Record
from gauntlet.leaderboard.results.store import Store

Progress = Callable[[int], None]
"""Called with the number of samples that have just been finished."""


class StoredResultError(RuntimeError):
    """What the store holds for these keys is not what the model now answers, or what the attack now gives."""


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
        for some in _together_in_memory(missing, image_bytes(prepared.data.images)):
            # Closed on every way out, so that the model and the global generator are at once as they were.
            with closing(_attack(prepared, some, settings)) as records:
                for attacked in records:
                    record = attacked if settings.keep_adversarials else _without_examples(attacked)
                    if not store.write(record):
                        _check_same(record, store.read(record.key))
                    # The store has its examples: those of a large set would not fit into memory.
                    found[record.key] = _without_examples(record)
                    tell(len(record.samples))
        store.clear_error(cell.name)
    except StoreError:
        raise
    except Exception as exception:
        error = cell_error(cell, exception, settings.device)
        store.write_error(cell.name, error)
    ordered = tuple(found[block.key] for block in prepared.blocks if block.key in found)
    return CellResult(cell.info, ordered, error, expected=len(prepared.data.labels))


def _together_in_memory(missing: Sequence[Block], size: int) -> Iterator[list[Block]]:
    """Groups of blocks whose images, of `size` bytes each, fit into `MEMORY_LIMIT` together; at least one block a group."""
    some: list[Block] = []
    for block in missing:
        if some and size * (sum(len(one.indices) for one in some) + len(block.indices)) > MEMORY_LIMIT:
            yield some
            some = []
        some.append(block)
    if some:
        yield some


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
        rejects=prepared.defended.rejects,
    )
    places, at = [], 0
    for block in missing:
        places.append(range(at, at + len(block.indices)))
        at += len(block.indices)
    with frozen(prepared.defended, cell.info.seed):
        shown = _together(prepared.flags, prepared.check())
        clean = examine_clean(verify)
        for done in _executor(prepared.attack)(prepared, verify, clean, places, settings):
            block, place, outcomes = missing[done.number], places[done.number], done.outcomes
            if done.samples is None:
                samples, flags = block_record(verify, clean, place, outcomes, cell.threat)
            else:
                samples, flags = done.samples, ()
            proven = done.certified
            yield Record(
                key=block.key,
                cell=cell.info,
                samples=samples if proven is None else replace(samples, certified=proven.cpu().numpy()),
                stats=replace(
                    done.stats,
                    candidates_rejected=sum(outcome.rejected for outcome in outcomes),
                    disagreements=sum(outcome.disagreements for outcome in outcomes),
                    widened=sum(outcome.masked_fallback > 0 for outcome in outcomes),
                    widened_passes=sum(outcome.masked_fallback for outcome in outcomes),
                ),
                flags=(*shown, *flags),
                provenance={**provenance(settings.device), "weights": prepared.weights, "data": block.data},
                clean_logits=_clean_logits(prepared, verify, place, block),
            )


_SAME = {
    "non-differentiable-defense": {"unavailable-gradients", "zero-gradient", "finite-differences"},
    "randomised-defense": {"randomised-model"},
}
"""What a declared defense's flag says, and the checks that find just that."""


def _together(declared: Sequence[Flag], found: Sequence[Flag]) -> tuple[Flag, ...]:
    """What is declared, and what checks found besides; of two flags of one name the check's, which knows the defense."""
    names = {flag.name for flag in found}
    said = set[str]().union(*(_SAME.get(flag.name, set()) for flag in declared))
    return (
        *(flag for flag in declared if flag.name not in names),
        *(flag for flag in found if flag.name not in said),
    )


def _executor(attack: AnyAttack) -> Execute:
    if isinstance(attack, Rule | Cascade):
        return run_native
    if isinstance(attack, Replay):
        return run_replay
    if isinstance(attack, Corruption):
        return run_corruption
    return run_certificate if isinstance(attack, Certificate) else run_library


@contextmanager
def frozen(model: nn.Module, seed: int) -> Iterator[None]:
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
    rejects = prepared.defended.rejects
    labels = labels.to(settings.device)
    verify = Verifier(prepared.defended, images, labels, ids, prepared.cell.threat, seed=0, rejects=rejects)
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
