"""`work(request) → messages`: the user's side of the seam, the same for the local engine and for other processes."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from gauntlet.attacks.ops.rounding import difference
from gauntlet.attacks.views.fast_model import missing_precision
from gauntlet.bench.config.schema import ConfigError
from gauntlet.bench.environment.device import choose_device
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.environment.provenance import device_name, provenance
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.executors.example_index import FindExamples
from gauntlet.bench.executors.executable import Block, Prepared, RunSettings
from gauntlet.bench.planning.plan import resolve_plan
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.registry.plugin_files import load_plugins
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.bench.worker.attack_blocks import attack_blocks, check_pipeline
from gauntlet.bench.worker.draw_examples import draw_examples
from gauntlet.bench.worker.installed_versions import installed_versions
from gauntlet.bench.worker.messages import BlockInfo, BlockRecord, Failure, Message, Planned, PreparedCell, Progress
from gauntlet.bench.worker.request import DrawExamples, Request, StoredLogits, TryExamples
from gauntlet.bench.worker.seam import AnyRequest, KeysDifferError, StoredResultError, Watch, WorkerSettings
from gauntlet.bench.worker.try_examples import BaselineModels, try_examples
from gauntlet.leaderboard.gate.baseline import data_digest
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import Record

_TOLERANCE = 1e-3
"""Allowed `gauntlet.attacks.ops.rounding.difference` from the stored clean logits: rounding on another device."""


class LocalWorker:
    """Answers requests in this process, with the models, data and defenses that a workbench loads."""

    def __init__(self, bench: Workbench, watch: Watch | None = None, plugins: tuple[str, ...] = ()) -> None:
        """`plugins`: loaded before the first cell; a plan request loads its own."""
        self.bench, self.watch = bench, watch
        self._plugins = plugins
        self._baselines = BaselineModels()

    @classmethod
    def of(cls, settings: WorkerSettings, examples: FindExamples) -> LocalWorker:
        """The worker with these settings. Raises ConfigError for a device or precision that is not available."""
        device = choose_device(settings.device)
        if problem := missing_precision(settings.precision, device):
            raise ConfigError(f"{problem}: use auto, bfloat16 or float32")
        bench = Workbench(device, settings.precision, settings.checks, examples, compiled=settings.compiled)
        return cls(bench, plugins=settings.plugins)

    @property
    def device(self) -> str:
        """The name of the device, as results record it."""
        return device_name(self.bench.device)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Gauntlet, of its verifier and rules."""
        return installed_versions()

    def allow(self, seconds: float | None) -> None:
        """Nothing: code in this process cannot be stopped."""

    def close(self) -> None:
        """Nothing: the process goes on."""

    def work(self, request: AnyRequest) -> Generator[Message]:
        """The messages for a request: `PreparedCell`, then a record and progress for each block. A plan request gives `Planned`.

        An exception of the user's code, the attack or the verifier becomes a `Failure`, the last message, and so does `sys.exit`.
        Raises StoreError if stored examples cannot be read, and KeyboardInterrupt.
        """
        try:
            with exits_reported():
                yield from self._work(request)
        except StoreError:
            raise
        except Exception as exception:
            yield failure(exception, self.bench.device)

    def _work(self, request: AnyRequest) -> Generator[Message]:
        if isinstance(request, PlanRequest):
            plan = resolve_plan(request)
            yield Planned(plan.cells, plan.skipped)
            return
        load_plugins(self._plugins)
        self._plugins = ()
        if isinstance(request, TryExamples):
            yield try_examples(self.bench, self._baselines, request)
        elif isinstance(request, DrawExamples):
            yield draw_examples(self.bench.data(request.data), request)
        else:
            yield from self._cell(request)

    def _cell(self, request: Request) -> Generator[Message]:
        bench = self.bench
        prepared = bench.prepare(request.cell, measured=request.measured)
        blocks = prepared.blocks
        if request.blocks is not None:
            blocks = tuple(prepared.block(indices) for indices in request.blocks)
        if request.check:
            check_pipeline(prepared, request.batch_size)
        model = bench.model(request.cell.model)
        yield PreparedCell(
            prepared.cell.info,
            tuple(_described(block, prepared.data.ids) for block in blocks),
            dict(prepared.measured),
            model.card.published if model.card is not None else (),
            model.notes,
            _data(prepared),
            prepared.attack.code,
            prepared.weights,
            bool(prepared.attack.stages),
        )
        if request.expected is not None:
            _check_logits(prepared, blocks, request.expected)
        wanted = [block for block in blocks if block.key in set(request.run)]
        if len(wanted) < len(request.run):
            raise KeysDifferError(
                f"{prepared.cell.info.title} has other keys here than where it was prepared: have the same code, weights and "
                "data on all machines, in the same versions"
            )
        settings = RunSettings(bench.device, request.batch_size, watch=self.watch)
        with closing(attack_blocks(prepared, wanted, settings)) as records:
            for record in records:
                kept = record if request.keep_adversarials else without_examples(record)
                yield BlockRecord(record.key, partial(to_bytes, kept))
                yield Progress(len(record.samples))


def _data(prepared: Prepared) -> str:
    ids = [prepared.data.ids[index] for block in prepared.blocks for index in block.indices]
    return data_digest([block.data for block in prepared.blocks], ids)


def without_examples(record: Record) -> Record:
    """The record without its adversarial examples."""
    nothing = [None] * len(record.samples)
    return replace(record, samples=replace(record.samples, adversarial=nothing))


def failure(exception: Exception, device: torch.device | None = None) -> Failure:
    """An exception as a message, with the remedy where it is known."""
    message = str(exception).strip() or type(exception).__name__
    if isinstance(exception, torch.cuda.OutOfMemoryError):
        message += " — try a smaller --batch-size"
    text = "".join(traceback.format_exception(exception))
    usage = isinstance(exception, ValueError | LookupError | FileNotFoundError)
    return Failure(type(exception).__name__, message, text, {} if device is None else provenance(device), usage)


def _described(block: Block, ids: Sequence[str]) -> BlockInfo:
    indices = tuple(block.indices)
    return BlockInfo(block.key, len(indices), indices, tuple(ids[index] for index in indices), block.data)


@timed("check")
def _check_logits(prepared: Prepared, blocks: Sequence[Block], expected: StoredLogits) -> None:
    """Raise StoredResultError unless the model gives the stored clean logits of a block."""
    verify = Verifier.of(prepared, blocks[expected.block].indices)
    now = verify.logits(verify.images).to(torch.float64).cpu()
    stored = torch.tensor(expected.logits, dtype=torch.float64)
    # Stored numbers have the resolution of the model's own.
    if not difference(now.float(), stored.float()) <= _TOLERANCE:
        raise StoredResultError(
            f"{prepared.cell.info.model} does not reproduce its stored clean logits (largest difference "
            f"{_largest(now - stored):.3g}), although weights and source are the same: code that it imports, or a library, "
            "has changed. Use another --out folder"
        )


def _largest(difference: Tensor) -> float:
    """The largest difference of a logit; −∞ from −∞ is none."""
    return float(difference.nan_to_num(0.0, posinf=torch.inf, neginf=-torch.inf).abs().max())
