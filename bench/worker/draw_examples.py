"""Drawing adversarial examples beside the clean images of their data set, which only a worker loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gauntlet.bench.config.schema import DataRef
from gauntlet.bench.worker.messages import Drawn
from gauntlet.bench.worker.request import DrawExamples, Images
from gauntlet.leaderboard.pictures.canvas import PicturesMissingError, png
from gauntlet.leaderboard.pictures.examples import ExampleColumn, examples_figure
from gauntlet.leaderboard.rows.closest_examples import BrokenSample

if TYPE_CHECKING:  # data need torch
    from gauntlet.bench.data.samples.dataset import Data

_ORDERS = {"Linf": np.inf, "L2": 2, "L1": 1}


class NoPictureError(ValueError):
    """A picture cannot be drawn; the message says why and what to do."""


def draw_examples(data: Data, request: DrawExamples) -> Drawn:
    """A picture with a column for each sample."""
    try:
        columns = [
            example_column(data, request.data, request.norm, sample, image)
            for sample, image in zip(request.samples, request.images, strict=True)
        ]
        return Drawn(png(examples_figure(columns, request.title)))
    except PicturesMissingError as error:
        return Drawn(reason=str(error), extra=True)
    except NoPictureError as error:
        return Drawn(reason=str(error))


def example_column(data: Data, ref: DataRef, norm: str, sample: BrokenSample, example: Images) -> ExampleColumn:
    """The clean image and the example of a sample of the data `ref`.

    Raises NoPictureError if the data do not have it, or not as they were when the example was made.
    """
    index = data.ids.index(sample.id) if sample.id in data.ids else None
    if index is None or int(data.labels[index]) != sample.label:
        raise NoPictureError(
            f"data {ref.spec!r} have no sample {sample.id!r} with label {sample.label}: they have changed since the run; "
            "restore the data of the run"
        )
    clean: Images = data.images[index].numpy()
    measured = float(np.linalg.norm((example - clean).astype(np.float64).ravel(), _ORDERS[norm]))
    if abs(measured - sample.distance) > 1e-5 * max(1.0, sample.distance):
        raise NoPictureError(
            f"the image of sample {sample.id!r} has changed since the run: the distance to its example is {measured:.4g}, not "
            f"{sample.distance:.4g}; restore the data of the run"
        )
    return ExampleColumn(sample, clean, example)
