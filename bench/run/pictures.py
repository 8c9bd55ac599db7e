"""Pictures of a stored run: which cells, which samples, and their clean images from the run's data."""

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
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.registry.plugin_files import load_recorded
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.pictures.canvas import PicturesMissingError, png
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

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure

_LONGEST_NAME = 120
_FEW = 4
_ORDERS = {"Linf": np.inf, "L2": 2, "L1": 1}


class NoPictureError(ValueError):
    """A picture cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Patterns:
    """Shell wildcards that choose cells."""

    model: str = "*"
    defense: str = "*"
    attack: str = "*"

    def match(self, cell: Cell) -> bool:
        """Whether the cell is chosen; a name without wildcards means itself."""
        pairs = ((cell.info.model, self.model), (cell.info.defense, self.defense), (cell.info.attack, self.attack))
        return all(name == pattern or fnmatch.fnmatchcase(name, pattern) for name, pattern in pairs)


@dataclass(frozen=True)
class TableRow:
    """The chosen cells of one row of the leaderboard, and the folder of their pictures."""

    title: str
    folder: Path
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Drawn:
    """A picture that was written, or why it was not."""

    path: Path
    missing: str = ""


class Gallery:
    """The pictures of one run; data are loaded once, when the first clean image is asked for."""

    def __init__(self, run: Run, results: Mapping[str, CellResult] | None = None) -> None:
        """`results`, by the cells' names, stand in place of what the run has of them."""
        self.run = run
        self._data: dict[DataRef, tuple[Data, dict[str, int]]] = {}
        self._results: dict[str, CellResult] = dict(results or {})

    def rows(self, patterns: Patterns) -> list[TableRow]:
        """The rows that have a chosen cell, in the order of the plan. Raises NoPictureError where there is none."""
        every: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self.run.plan.cells:
            every.setdefault(row_key(cell.info), []).append(cell)
        found = []
        for key, folder in _folders(list(every), self.run.root / "pictures").items():
            some = tuple(c for c in every[key] if patterns.match(c) and c.info.adversarial)
            if some:
                info = some[0].info
                title = f"{info.model} × {info.defense}, {info.threat}, {info.data}, {info.suite}"
                found.append(TableRow(title, folder, some))
        if not found:
            raise NoPictureError(
                f"no cell of the run has model {patterns.model!r}, defense {patterns.defense!r} and attack "
                f"{patterns.attack!r}: `gauntlet show {self.run.root}` lists the cells; correct --model, --defense, --attack"
            )
        return found

    def result(self, cell: Cell) -> CellResult:
        """What the store holds of the cell, without its examples."""
        if cell.name not in self._results:
            self._results[cell.name] = self.run.result(cell)
        return self._results[cell.name]

    def draw(self, row: TableRow) -> Iterator[Drawn]:
        """Write the row's pictures, one after the other."""
        pairs = [(cell, result) for cell in row.cells if cells.covered(result := self.result(cell))]
        attacked = [result for _, result in pairs]
        if not pairs:
            yield Drawn(row.folder, "no cell of the row has results yet: run it first")
            return
        title = f"{row.title}\nunder {', '.join(dict.fromkeys(result.cell.attack for result in attacked))}"
        nothing = "no minimum-norm attack (such as fmn, ddn, cw, deepfool) was run: its distances make this picture"
        drawings: list[tuple[str, Callable[[], Figure | None]]] = [
            ("examples.png", lambda: examples_figure(self._shown(pairs), title)),
            ("robust-against-eps.png", lambda: accuracy_against_eps(attacked, row.title)),
            ("robust-against-cost.png", lambda: accuracy_against_cost(attacked, row.title)),
            ("confusion.png", lambda: confusion_figure(attacked, f"Worst case: {title}")),
        ]
        for name, make in drawings:
            yield self._write(row.folder / name, make, nothing)

    def draw_sample(self, row: TableRow, sample: str) -> Drawn | None:
        """Write the picture of one sample, a column for each of the row's cells with an example of it; None where none has."""
        shown = []
        for number, cell in enumerate(row.cells):
            about = self._about(cell, sample, number)
            if about is not None:
                shown.append((about, cell))
        if not shown:
            return None
        closest = sorted(shown, key=lambda pair: pair[0].distance)[:MOST_EXAMPLES]
        return self._write(
            sample_path(row, sample),
            lambda: examples_figure(
                [self._images(about, cell) for about, cell in closest], f"Sample {sample}\n{row.title}"
            ),
        )

    def draw_lost(self, cell: Cell, samples: Sequence[str]) -> Drawn | None:
        """Write one picture of a few of the first 100 of the samples, spread over the classes, under the cell's attack; None
        where the attack has an example of none of these."""
        found = (self._about(cell, sample, 0) for sample in samples[:100])
        few = spread_over_classes(filter(None, found), _FEW)
        if not few:
            return None
        row = next(row for row in self.rows(Patterns()) if cell in row.cells)
        title = (
            f"{len(few)} of {len(samples)} lost samples\n{row.title}\nunder {cell.info.attack}, seed {cell.info.seed}"
        )
        name = f"lost-{_file_name(cell.info.attack)}-{cell.info.seed}.png"
        return self._write(
            row.folder / name, lambda: examples_figure([self._images(about, cell) for about in few], title)
        )

    def _write(self, path: Path, make: Callable[[], Figure | None], nothing: str = "") -> Drawn:
        try:
            figure = make()
        except PicturesMissingError:
            raise
        except Exception as problem:
            # A user's data may raise anything; data that are gone take the examples with them, not the other pictures.
            told = problem.args[0] if isinstance(problem, LookupError) and problem.args else problem
            kind = "" if isinstance(problem, ValueError | LookupError | OSError) else f"{type(problem).__name__}: "
            return Drawn(path, f"{kind}{told}")
        if figure is None:
            return Drawn(path, nothing)
        replace_bytes(path, png(figure))
        return Drawn(path)

    def _shown(self, pairs: Sequence[tuple[Cell, CellResult]]) -> list[ExampleColumn]:
        broken = closest_examples([result for _, result in pairs]).broken
        if not broken:
            raise NoPictureError("no sample was broken: there is no example to show")
        return [self._images(one, pairs[one.cell][0]) for one in spread_over_classes(broken.values())]

    def _about(self, cell: Cell, sample: str, number: int) -> BrokenSample | None:
        for block in self.result(cell).blocks:
            for row in np.flatnonzero(block.samples.id == sample):
                found = block.samples
                if np.isnan(found.distance[row]):
                    return None
                return BrokenSample(
                    sample,
                    int(found.label[row]),
                    int(found.prediction[row]),
                    float(found.distance[row]),
                    cell.info.attack,
                    number,
                )
        return None

    def _images(self, about: BrokenSample, cell: Cell) -> ExampleColumn:
        """Both images of a sample. Raises NoPictureError where they are not to be had, or do not fit each other."""
        example = self._example(cell, about.id)
        clean = self._clean(cell.data, about)
        measured = float(np.linalg.norm((example - clean).astype(np.float64).ravel(), _ORDERS[cell.threat.norm]))
        if abs(measured - about.distance) > 1e-5 * max(1.0, about.distance):
            raise NoPictureError(
                f"the image of sample {about.id!r} is not the one of the run: its example lies at {measured:.4g} from it, "
                f"not at {about.distance:.4g}; show the run where its data are unchanged"
            )
        return ExampleColumn(about, clean, example)

    def _example(self, cell: Cell, sample: str) -> Image:
        for block in self.result(cell).blocks:
            for row in np.flatnonzero(block.samples.id == sample).tolist():
                example: Image | None = self.run.store.read(block.key, adversarial=True).samples.adversarial[row]
                if example is not None:
                    return example
        raise NoPictureError(
            f"the example of sample {sample!r} was not kept: run again without --no-adversarials, with --fresh"
        )

    def _clean(self, ref: DataRef, about: BrokenSample) -> Image:
        if ref not in self._data:
            load_recorded(self.run.plugins)
            data = load_data(ref.spec, samples=ref.samples)
            self._data[ref] = data, {name: place for place, name in enumerate(data.ids)}
        data, places = self._data[ref]
        place = places.get(about.id)
        if place is None or int(data.labels[place]) != about.label:
            raise NoPictureError(
                f"data {ref.spec!r} have no sample {about.id!r} with label {about.label}: they are not those of the run; "
                "show it where its data are unchanged"
            )
        image: Image = data.images[place].numpy()
        return image


def sample_path(row: TableRow, sample: str) -> Path:
    """Where the picture of that sample lies, or would lie."""
    return row.folder / f"sample-{_file_name(sample)}.png"


def _folders(keys: Sequence[tuple[str, ...]], parent: Path) -> dict[tuple[str, ...], Path]:
    """A folder for each row: model, defense and threat model, and data and suite where the run has several."""
    parts = [part for part in range(5) if part < 3 or len({key[part] for key in keys}) > 1]
    return {key: parent / _file_name("__".join(key[part] for part in parts)) for key in keys}


def _file_name(text: str) -> str:
    """A readable part of a path; where characters had to be changed, a digest tells apart what would be the same."""
    told = re.sub(r"(Linf|L2|L1):([\d.]+)(?:/(\d+))?", lambda found: "-".join(filter(None, found.groups())), text)
    name = re.sub(r"[^\w.=@-]+", "-", told, flags=re.ASCII).strip("-.")[:_LONGEST_NAME]
    return (
        name if name == told else f"{name}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    )
