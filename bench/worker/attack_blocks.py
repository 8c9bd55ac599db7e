"""Running blocks of a prepared cell: attack, verify, record."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.solving.task import Outcome
from gauntlet.attacks.views.fast_model import full_float32
from gauntlet.attacks.views.kept_weights import weights_kept
from gauntlet.bench.data.samples.lazy_images import MEMORY_LIMIT, image_bytes
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.provenance import provenance
from gauntlet.bench.environment.stopwatch import timed, timed_steps
from gauntlet.bench.executors.executable import Block, BlockBatch, BlockResult, Prepared, RunSettings
from gauntlet.bench.prepare.defense_facts import merge_flags
from gauntlet.bench.verify import verifier
from gauntlet.bench.verify.sample_record import CleanEvaluation, block_record, examine_clean
from gauntlet.bench.verify.settle import settled
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.bench.worker.prefetch import prefetched
from gauntlet.leaderboard.results.record import Record, Stats

_BATCHES = 4
"""Batches of a GPU whose samples are in memory at once, however large the images: else the last batches would not be full."""


def check_pipeline(prepared: Prepared, batch_size: int | None) -> None:
    """Run the checks and, unless the batch size is given, measure the slots: what precedes an attack and is stored."""
    with timed("check"), frozen(prepared.defended, prepared.cell.info.seed):
        prepared.check()
        if batch_size is None:
            prepared.slots.measure()


def attack_blocks(prepared: Prepared, blocks: Sequence[Block], settings: RunSettings) -> Generator[Record]:
    """Yield the record of each block as soon as its last sample is decided.

    As many blocks as fit into memory are attacked together, so that batches stay full; meanwhile the images of the next ones are
    read. Close the generator in every case: that restores the model and the global random generator.
    """
    done, every = 0, sum(len(block.indices) for block in blocks)
    groups = list(_groups(blocks, _together(prepared, settings)))
    rows = [[index for block in together for index in block.indices] for together in groups]
    with closing(prefetched(prepared.data.images, rows, prepared.device)) as loaded:
        for together, count in zip(groups, map(len, rows), strict=True):
            with timed("load"):
                images = next(loaded)
            part = replace(settings, watch=_part(settings.watch, done, count, every))
            yield from _attack(prepared, together, part, images)
            # Not kept while the next ones are taken.
            del images
            done += count


def _together(prepared: Prepared, settings: RunSettings) -> int:
    """Samples that are attacked together: as many as are in memory at once, and several batches where these were measured."""
    most = MEMORY_LIMIT // image_bytes(prepared.data.images)
    measured = None if settings.batch_size else prepared.slots.measure()
    return max(most, _BATCHES * (measured or 0))


def _groups(blocks: Sequence[Block], most: int) -> Iterator[list[Block]]:
    """Successive blocks of at most `most` samples together, but at least one block."""
    together: list[Block] = []
    for block in blocks:
        if together and sum(len(one.indices) for one in together) + len(block.indices) > most:
            yield together
            together = []
        together.append(block)
    if together:
        yield together


def _part(watch: Callable[[float], None] | None, done: int, count: int, every: int) -> Callable[[float], None] | None:
    """What watches `count` of `every` samples, of which `done` are finished before."""
    return None if watch is None else lambda share: watch((done + share * count) / every)


def _attack(prepared: Prepared, blocks: Sequence[Block], settings: RunSettings, images: Tensor) -> Generator[Record]:
    verify = Verifier.of(prepared, [index for block in blocks for index in block.indices], images=images)
    verify.alone = prepared.by_batch
    places, at = [], 0
    for block in blocks:
        places.append(range(at, at + len(block.indices)))
        at += len(block.indices)
    with frozen(prepared.defended, prepared.cell.info.seed):
        with timed("check"):
            flags = merge_flags(prepared.flags, prepared.check())
        with timed("clean"):
            clean = examine_clean(verify, places)
        for result in timed_steps("attack", prepared.attack.run(BlockBatch(prepared, verify, clean, places, settings))):
            block, place = blocks[result.number], places[result.number]
            if result.samples is None:
                with timed("verify"):
                    result = _settled(verify, result, place)
                    samples, more_flags = block_record(
                        verify, clean, place, result.outcomes, prepared.cell.threat, by_batch=prepared.by_batch
                    )
            else:
                samples, more_flags = result.samples, ()
            if result.certified is not None:
                samples = replace(samples, certified=result.certified.cpu().numpy())
            yield Record(
                key=block.key,
                cell=prepared.cell.info,
                samples=samples,
                stats=_stats(result),
                flags=(*flags, *more_flags),
                provenance=_provenance(prepared, block, settings),
                clean_logits=_clean_logits(prepared, clean, place, block),
            )


def _settled(verify: Verifier, result: BlockResult, place: range) -> BlockResult:
    """The result with verified examples alone, and with the seconds of attacks that were made again."""
    attack, seconds = result.again, 0.0
    if attack is None:
        return replace(result, outcomes=settled(verify, result.outcomes, place))

    def again(samples: Sequence[int]) -> list[Outcome]:
        nonlocal seconds
        with timed("attack"):
            began, judged = synchronised_time(), verify.seconds
            outcomes = attack(samples)
            seconds += synchronised_time() - began - (verify.seconds - judged)
        return outcomes

    outcomes = settled(verify, result.outcomes, place, again)
    return replace(result, outcomes=outcomes, stats=replace(result.stats, seconds=result.stats.seconds + seconds))


def _stats(result: BlockResult) -> Stats:
    outcomes = result.outcomes
    return replace(
        result.stats,
        candidates_rejected=sum(outcome.rejected for outcome in outcomes),
        disagreements=sum(outcome.disagreements for outcome in outcomes),
        speculative_passes=sum(outcome.speculative for outcome in outcomes),
        masked_fallback=sum(outcome.masked_fallback > 0 for outcome in outcomes),
        masked_fallback_passes=sum(outcome.masked_fallback for outcome in outcomes),
        masked=sum(outcome.adversarial is None and outcome.masked for outcome in outcomes),
    )


def _provenance(prepared: Prepared, block: Block, settings: RunSettings) -> dict[str, object]:
    return {
        **provenance(settings.device),
        "weights": prepared.weights,
        "data": block.data,
        "versions": {
            "verifier": verifier.VERSION,
            "attack": prepared.attack.versions,
            **({"code": prepared.attack.code} if prepared.attack.code else {}),
        },
        **({"report_as": prepared.attack.report_as} if prepared.attack.report_as else {}),
    }


@contextmanager
def frozen(model: nn.Module, seed: int) -> Iterator[None]:
    """Disable gradients of parameters, and seed the global random generator; both are restored on exit.

    Guards within share their copies of the model's weights.
    """
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in required:
            parameter.requires_grad_(False)
        with weights_kept(model), full_float32(), torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        for parameter, needed in required:
            parameter.requires_grad_(needed)


def _clean_logits(prepared: Prepared, clean: CleanEvaluation, place: range, block: Block) -> np.ndarray | None:
    if block is not prepared.blocks[0] or clean.measured.logits is None:
        return None
    return clean.measured.logits[place.start : place.stop].to(torch.float64).cpu().numpy()
