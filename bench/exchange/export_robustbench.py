"""Exporting a row of a results folder as RobustBench wants it: the issue, `model_info`, and the tensor of adversarial images."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.model_ref import given_settings
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.exchange.robustbench_issue import PREFIX, Kind, issue_text, model_info
from gauntlet.bench.registry.plugin_files import load_recorded
from gauntlet.bench.results_folder.all_runs import joint_summaries, row_runs, shown_runs
from gauntlet.bench.results_folder.model_descriptions import read_descriptions
from gauntlet.bench.run.named_code import refuse_code
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.report.cell_text import attack_settings
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.atomic_files import replace_bytes, replace_text
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.closest_examples import closest_examples
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.rows.worst_case import row_key


class ExportError(ValueError):
    """A row cannot be exported; the message says why and what to do."""


def export_robustbench(
    folder: Path,
    model: str,
    *,
    threat: str | None = None,
    data: str | None = None,
    suite: str | None = None,
    kind: Kind | None = None,
    out: Path | None = None,
    plugins: tuple[str, ...] = (),
    trust: bool = False,
) -> Iterator[str]:
    """Write `issue.md`, `model_info.json` and `examples.pt`, and yield lines on what was written.

    The row is that of the model without a defense; `threat`, `data` and `suite` choose among several. `kind`: by default
    `external` for models of RobustBench's zoo, else `new`. `out`: default, `robustbench/MODEL` in the results folder. Raises
    ExportError, RunError, StoreError, WriteError, UntrustedCodeError, and what loading the data raises.
    """
    runs = shown_runs(folder)
    row = _row(build_rows(joint_summaries(runs)), model, threat, data, suite)
    run = row_runs(runs)[row.key]
    run = replace(run, plugins=plugins or run.plugins)
    refuse_code(run, trust=trust, by_hand=bool(plugins), models=False)
    cells = [cell for cell in run.plan.cells if row_key(cell.info) == row.key and cell.info.adversarial]
    images = adversarial_images(run, cells, row)
    content = io.BytesIO()
    torch.save(images, content)
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    chosen: Kind = kind or ("external" if model.startswith(PREFIX) else "new")
    about = read_descriptions(run.root).get(model, ModelDescription(model))
    settings = tuple(dict.fromkeys(attack_settings(cell.info.attack_spec) for cell in cells))
    place = out or run.root / "robustbench" / re.sub(r"[^\w.=@-]+", "-", model, flags=re.ASCII).strip("-.")
    replace_bytes(place / "examples.pt", content.getvalue())
    replace_text(place / "issue.md", issue_text(row, chosen, about, digest, settings, version("robust-gauntlet")))
    info = json.dumps(model_info(row, chosen, about), indent=2, ensure_ascii=False)
    replace_text(place / "model_info.json", info + "\n")
    for name in ("issue.md", "model_info.json", "examples.pt"):
        yield f"written: {place / name}"
    yield f"robust {100 * row.robust.estimate:.2f} % of {row.robust.n} images, which are in the order of the data"
    yield f"verify them: {_verify_command(place / 'examples.pt', cells[0], row)}"


def adversarial_images(run: Run, cells: Sequence[Cell], row: LeaderboardRow) -> Tensor:
    """The adversarial image of each sample of the row, float32 (N, C, H, W), in the order of its data.

    A sample that stands, or is misclassified when clean, has its clean image. Raises ExportError, StoreError.
    """
    load_recorded(run.plugins)
    loaded = load_data(cells[0].data.spec, samples=cells[0].data.samples)
    images = torch.stack([loaded.images[place] for place in range(len(loaded))]).to(torch.float32)
    results = [run.result(cell) for cell in cells]
    found = closest_examples(results)
    if sorted(found.id.tolist()) != sorted(loaded.ids):
        raise ExportError(
            f"the row of {row.model!r} covers {len(found.id)} samples of {len(loaded)}: finish the run, and keep its data"
        )
    places = {name: place for place, name in enumerate(loaded.ids)}
    wanted: dict[int, set[str]] = {}
    for entry in found.broken.values():
        wanted.setdefault(entry.cell, set()).add(entry.id)
    for number, names in wanted.items():
        for name, image in _examples(run, results[number], names):
            example = torch.from_numpy(np.ascontiguousarray(image)).to(torch.float32)
            if example.shape != images.shape[1:]:
                raise ExportError(
                    f"the example of sample {name!r} has another shape than its image: restore the data of the run"
                )
            images[places[name]] = example
            names.discard(name)
        if names:
            raise ExportError(
                f"{len(names)} adversarial examples were not kept (first {min(names)}): run again with --fresh and without "
                "--no-adversarials"
            )
    return images


def _examples(run: Run, result: CellResult, names: set[str]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for block in result.blocks:
        if names.isdisjoint(block.samples.id.tolist()):
            continue
        stored = run.store.read(block.key, adversarial=True).samples
        for name, image in zip(stored.id.tolist(), stored.adversarial, strict=True):
            if name in names and image is not None:
                yield name, image.astype(np.float32)


def _row(
    rows: Sequence[LeaderboardRow], model: str, threat: str | None, data: str | None, suite: str | None
) -> LeaderboardRow:
    own = [row for row in rows if row.model == model and row.defense == "none"]
    if not own:
        known = ", ".join(dict.fromkeys(row.model for row in rows if row.defense == "none"))
        raise ExportError(f"no row without a defense has model {model!r}: name one of {known}")
    given = (threat, data, suite)
    chosen = [
        row
        for row in own
        if all(one in (None, of_row) for one, of_row in zip(given, (row.threat, row.data, row.suite), strict=True))
    ]
    if len(chosen) != 1:
        listed = ", ".join(f"{row.threat} on {row.data}, suite {row.suite}" for row in own)
        raise ExportError(
            f"model {model!r} has {len(own)} rows ({listed}), of which {len(chosen)} fit: choose one with --threat and --data, "
            "and of several suites with --suite"
        )
    (row,) = chosen
    if row.status != "ok" or not row.robust.n:
        raise ExportError(f"the row of {model!r} at {row.threat} is not finished: {' '.join(row.unranked)}")
    if ":target=" in row.threat:
        raise ExportError(
            f"the row of {model!r} at {row.threat} is of targeted attacks, and RobustBench's figures are of untargeted ones: "
            f"choose a row at {row.threat.partition(':target=')[0]}, or run the attacks there"
        )
    if row.randomised:
        raise ExportError(
            f"model {model!r} is randomised: no fixed images show its robust accuracy, and RobustBench takes deterministic "
            "models only; export a model that is deterministic"
        )
    return row


def _verify_command(path: Path, cell: Cell, row: LeaderboardRow) -> str:
    samples = ["--samples", cell.data.samples] if cell.data.samples else []
    model = cell.model.spec + (f"@{cell.model.weights}" if cell.model.weights else "")
    settings = [part for text in given_settings(cell.model) for part in _option(text)]
    return shlex.join(
        [
            *("gauntlet", "verify", "--examples", str(path), "--model", model, *settings),
            *("--data", cell.data.spec, *samples, "--threat", row.threat),
        ]
    )


def _option(setting: str) -> list[str]:
    """A setting of `given_settings` as an option of the command line."""
    name, _, value = setting.partition(" ")
    return [f"--{name.replace('_', '-')}", *([value] if value else [])]
