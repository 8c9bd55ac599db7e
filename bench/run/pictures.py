"""Drawing pictures of a stored run: choosing cells and samples, and loading their clean images from the run's data."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import DataRef
from gauntlet.bench.registry.plugin_files import load_recorded
from gauntlet.bench.run.run_folder import Run
from gauntlet.bench.worker.draw_examples import NoPictureError as NoPictureError
from gauntlet.bench.worker.draw_examples import draw_examples, example_column
from gauntlet.bench.worker.messages import Drawn, Failure
from gauntlet.bench.worker.request import DrawExamples
from gauntlet.bench.worker.seam import Work, answer
from gauntlet.leaderboard.pictures.canvas import Form, PicturesMissingError, drawn
from gauntlet.leaderboard.pictures.confusion import confusion_figure
from gauntlet.leaderboard.pictures.curves import accuracy_against_cost, accuracy_against_eps
from gauntlet.leaderboard.pictures.examples import (
    MOST_EXAMPLES,
    ExampleColumn,
    Image,
    examples_figure,
    spread_over_classes,
)
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.atomic_files import replace_bytes
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.closest_examples import BrokenSample, closest_examples
from gauntlet.leaderboard.rows.worst_case import row_key

if TYPE_CHECKING:  # matplotlib is an extra, and data need torch
    from matplotlib.figure import Figure

    from gauntlet.bench.data.samples.dataset import Data

_LONGEST_NAME = 120
_FEW = 4


@dataclass(frozen=True)
class Patterns:
    """Shell wildcards that choose cells."""

    model: str = "*"
    defense: str = "*"
    attack: str = "*"

    def match(self, cell: Cell) -> bool:
        """Whether the cell matches; a pattern without wildcards matches the equal name."""
        pairs = ((cell.info.model, self.model), (cell.info.defense, self.defense), (cell.info.attack, self.attack))
        return all(name == pattern or fnmatch.fnmatchcase(name, pattern) for name, pattern in pairs)


@dataclass(frozen=True)
class TableRow:
    """The chosen cells of one row of the leaderboard, and the folder of their pictures."""

    title: str
    folder: Path
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class WrittenPicture:
    """A picture that was written, or could not be."""

    path: Path
    missing: str = ""
    """Why the picture is missing; empty if it was written."""


class Gallery:
    """The pictures of a run. Data are loaded once, for the first clean image."""

    def __init__(
        self,
        run: Run,
        results: Mapping[str, CellResult] | None = None,
        work: Work | None = None,
        form: Form = "png",
    ) -> None:
        """`results`: by the cells' names; they replace the stored results of these cells. `work`: loads data and draws lost
        samples; default, this process. `form`: of the pictures of rows."""
        self.run = run
        self._form = form
        self._work = work
        self._data: dict[DataRef, Data] = {}
        self._results: dict[str, CellResult] = dict(results or {})

    def rows(self, patterns: Patterns) -> list[TableRow]:
        """The rows with a chosen cell, in the order of the plan. Raises NoPictureError if there is none."""
        every: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self.run.plan.cells:
            every.setdefault(row_key(cell.info), []).append(cell)
        rows = []
        for key, folder in _folders(list(every), self.run.root / "pictures").items():
            chosen = tuple(cell for cell in every[key] if patterns.match(cell) and cell.info.adversarial)
            if chosen:
                info = chosen[0].info
                title = f"{info.model} × {info.defense}, {info.threat}, {info.data}, {info.suite}"
                rows.append(TableRow(title, folder, chosen))
        if not rows:
            raise NoPictureError(
                f"no cell of the run has model {patterns.model!r}, defense {patterns.defense!r} and attack "
                f"{patterns.attack!r}: `gauntlet show {self.run.root}` lists the cells; correct --model, --defense, --attack"
            )
        return rows

    def result(self, cell: Cell) -> CellResult:
        """The result of the cell, without its examples."""
        if cell.name not in self._results:
            self._results[cell.name] = self.run.result(cell)
        return self._results[cell.name]

    def draw(self, row: TableRow) -> Iterator[WrittenPicture]:
        """Write the row's pictures, in turn."""
        pairs = [(cell, result) for cell in row.cells if cells.covered(result := self.result(cell))]
        attacked = [result for _, result in pairs]
        if not pairs:
            yield WrittenPicture(row.folder, "no cell of the row has results yet: run it first")
            return
        title = f"{row.title}\nunder {', '.join(dict.fromkeys(result.cell.attack for result in attacked))}"
        nothing = "no minimum-norm attack (such as fmn, ddn, cw, deepfool) was run: this picture needs its distances"
        drawings: list[tuple[str, Callable[[], Figure | None]]] = [
            (f"examples.{self._form}", lambda: examples_figure(self._example_columns(pairs), title)),
            (f"robust-against-eps.{self._form}", lambda: accuracy_against_eps(attacked, row.title)),
            (f"robust-against-cost.{self._form}", lambda: accuracy_against_cost(attacked, row.title)),
            (f"confusion.{self._form}", lambda: confusion_figure(attacked, f"Worst case: {title}")),
        ]
        for name, make in drawings:
            yield self._write(row.folder / name, make, nothing)

    def examples(self, row: TableRow, most: int) -> list[ExampleColumn]:
        """At most `most` examples of the row, spread over the classes, with their clean images.

        Raises NoPictureError, and what loading the data raises.
        """
        return self._example_columns([(cell, self.result(cell)) for cell in row.cells], most)

    def draw_sample(self, row: TableRow, sample: str) -> WrittenPicture | None:
        """Write the picture of a sample, with a column for each of the row's cells that has an example; None if none has."""
        broken = []
        for number, cell in enumerate(row.cells):
            entry = self._broken_sample(cell, sample, number)
            if entry is not None:
                broken.append((entry, cell))
        if not broken:
            return None
        closest = sorted(broken, key=lambda pair: pair[0].distance)[:MOST_EXAMPLES]
        return self._write(
            sample_path(row, sample),
            lambda: examples_figure(
                [self._images(entry, cell) for entry, cell in closest], f"Sample {sample}\n{row.title}"
            ),
        )

    def draw_lost(self, cell: Cell, samples: Sequence[str]) -> WrittenPicture | None:
        """Write a picture of a few of the samples, spread over their classes, under the cell's attack.

        None if the cell has no example of the first 100 samples.
        """
        broken = (self._broken_sample(cell, sample, 0) for sample in samples[:100])
        few = spread_over_classes(filter(None, broken), _FEW)
        if not few:
            return None
        row = next(row for row in self.rows(Patterns()) if cell in row.cells)
        title = (
            f"{len(few)} of {len(samples)} lost samples\n{row.title}\nunder {cell.info.attack}, seed {cell.info.seed}"
        )
        name = f"lost-{_file_name(cell.info.attack)}-{cell.info.seed}.png"
        return self._write(row.folder / name, lambda: self._drawn(cell, few, title))

    def _drawn(self, cell: Cell, few: Sequence[BrokenSample], title: str) -> bytes:
        """The file of a picture. Raises NoPictureError, PicturesMissingError."""
        examples = tuple(self._example(cell, entry.id) for entry in few)
        request = DrawExamples(cell.data, cell.threat.norm, title, tuple(few), examples)
        if self._work is None:
            message: object = draw_examples(self._loaded(request.data), request)
        else:
            message = answer(self._work, request)
        if isinstance(message, Failure):
            raise NoPictureError(message.message)
        assert isinstance(message, Drawn)
        if message.reason:
            raise (PicturesMissingError if message.extra else NoPictureError)(message.reason)
        return message.content

    def _write(self, path: Path, make: Callable[[], Figure | bytes | None], nothing: str = "") -> WrittenPicture:
        try:
            figure = make()
        except PicturesMissingError:
            raise
        except Exception as problem:
            # A user's data may raise anything. Without data the examples cannot be drawn, but the other pictures can.
            reason = problem.args[0] if isinstance(problem, LookupError) and problem.args else problem
            kind = "" if isinstance(problem, ValueError | LookupError | OSError) else f"{type(problem).__name__}: "
            return WrittenPicture(path, f"{kind}{reason}")
        if figure is None:
            return WrittenPicture(path, nothing)
        replace_bytes(path, figure if isinstance(figure, bytes) else drawn(figure, self._form))
        return WrittenPicture(path)

    def _example_columns(
        self, pairs: Sequence[tuple[Cell, CellResult]], most: int = MOST_EXAMPLES
    ) -> list[ExampleColumn]:
        broken = closest_examples([result for _, result in pairs]).broken
        if not broken:
            raise NoPictureError("no sample was broken: there is no example to show")
        return [self._images(entry, pairs[entry.cell][0]) for entry in spread_over_classes(broken.values(), most)]

    def _broken_sample(self, cell: Cell, sample: str, number: int) -> BrokenSample | None:
        for block in self.result(cell).blocks:
            samples = block.samples
            for row in np.flatnonzero(samples.id == sample):
                if np.isnan(samples.distance[row]):
                    return None
                return BrokenSample(
                    sample,
                    int(samples.label[row]),
                    int(samples.prediction[row]),
                    float(samples.distance[row]),
                    cell.info.attack,
                    number,
                )
        return None

    def _images(self, broken: BrokenSample, cell: Cell) -> ExampleColumn:
        """The clean image and the example of a sample. Raises NoPictureError if one is missing or they do not fit together."""
        example = self._example(cell, broken.id)
        return example_column(self._loaded(cell.data), cell.data, cell.threat.norm, broken, example)

    def _example(self, cell: Cell, sample: str) -> Image:
        for block in self.result(cell).blocks:
            for row in np.flatnonzero(block.samples.id == sample).tolist():
                example: Image | None = self.run.store.read(block.key, adversarial=True).samples.adversarial[row]
                if example is not None:
                    return example
        raise NoPictureError(
            f"the example of sample {sample!r} was not kept: run again with --fresh and without --no-adversarials"
        )

    def _loaded(self, ref: DataRef) -> Data:
        if ref not in self._data:
            from gauntlet.bench.data.load_data import load_data

            load_recorded(self.run.plugins)
            self._data[ref] = load_data(ref.spec, samples=ref.samples)
        return self._data[ref]


def sample_path(row: TableRow, sample: str) -> Path:
    """The path of the picture of a sample, whether it exists or not."""
    return row.folder / f"sample-{_file_name(sample)}.png"


def _folders(keys: Sequence[tuple[str, ...]], parent: Path) -> dict[tuple[str, ...], Path]:
    """A folder for each row, named by model, defense and threat model; also by data and suite if the run has several."""
    parts = [part for part in range(5) if part < 3 or len({key[part] for key in keys}) > 1]
    return {key: parent / _file_name("__".join(key[part] for part in parts)) for key in keys}


def _file_name(text: str) -> str:
    """A readable part of a path. If characters were replaced, a digest keeps different texts apart."""
    plain = re.sub(r"(Linf|L2|L1):([\d.]+)(?:/(\d+))?", lambda match: "-".join(filter(None, match.groups())), text)
    name = re.sub(r"[^\w.=@-]+", "-", plain, flags=re.ASCII).strip("-.")[:_LONGEST_NAME]
    return (
        name if name == plain else f"{name}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    )
