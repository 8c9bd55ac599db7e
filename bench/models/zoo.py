"""The embedded zoo: a small network on scikit-learn's digits, trained by nine recipes.

The figures, in percent, are those of the included weights (seed 0) on the 797 test images, under APGD-CE and APGD-T of 20
steps at the threat model of the training: L2 0.5 for pgd_l2, else Linf 0.15. The next columns are the figures with 100 steps,
and mean ± standard deviation over seeds with 20 steps.

    recipe     clean   robust   100 steps   seeds   clean        robust (lowest to highest)
    standard   97.4     6.9      6.9        10      97.0 ± 0.4    8.7 ± 2.7 ( 4.8 to 13.2)
    gauss      98.5    39.5     39.6        10      98.5 ± 0.2   37.7 ± 1.8 (34.5 to 39.5)
    fast       99.2    67.4     67.1        10      99.3 ± 0.1   67.1 ± 1.0 (65.7 to 68.4)
    pgd        98.9    72.8     72.4         6      99.0 ± 0.1   73.0 ± 1.2 (71.6 to 74.9)
    trades     98.1    76.9     76.5         6      98.0 ± 0.2   77.3 ± 0.6 (76.5 to 78.2)
    mart       98.7    75.0     74.9         5      98.6 ± 0.1   75.0 ± 1.0 (73.7 to 76.5)
    awp        98.1    77.0     77.0         5      98.0 ± 0.2   77.6 ± 0.8 (76.5 to 78.5)
    ibp        96.6    82.7     82.4         5      95.4 ± 1.2   78.8 ± 3.2 (74.2 to 82.7)
    pgd_l2     99.1    79.5     79.5         5      99.2 ± 0.1   80.2 ± 0.7 (79.5 to 81.4)

A tolerance is the distance of the figure from the mean plus 3 standard deviations, rounded up. Three seeds would be too few
to estimate it: the robust accuracy of the undefended network varies most. Interval bounds certify 80.7 % of the test images
for the included ibp, 77.2 ± 2.9 % over its seeds.

Importing this module does not import torch, so that listing cards is quick.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.bench.models.parts.card import ModelCard, ModelEntry, Spread

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).parent / "weights"
TABLE = Path(__file__).with_name("zoo.csv")
"""The figures: `clean`, `robust` and `certified` are numbers of test images, means and deviations are over the seeds."""
TEST_IMAGES = 797


def build_zoo_model(file: str, sha256: str, folder: Path = WEIGHTS) -> nn.Module:
    """The zoo's network with the weights of `file`, in eval mode.

    Raises ModelError if the file is missing or its sha256 is not that of the card, since results of other weights would
    appear under the card's name.
    """
    from safetensors.torch import load

    from gauntlet.bench.models.cnn import cnn
    from gauntlet.bench.models.parts.classifier import ModelError

    repair = (
        "install the package again (pip install --force-reinstall --no-deps robust-gauntlet), or in a checkout restore "
        f"bench/models/weights/{file}; to evaluate your own weights, pass them as weights="
    )
    path = folder / file
    if not path.is_file():
        raise ModelError(f"weights file {str(path)!r} is not there: {repair}")
    # Hashed and loaded from the same bytes, so that the file cannot change in between.
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != sha256:
        raise ModelError(
            f"weights file {str(path)!r} is not the included file: its sha256 is {digest}, not {sha256}: {repair}"
        )
    model = cnn()
    model.load_state_dict(load(raw))
    return model.eval()


def _entry(row: Mapping[str, str]) -> ModelEntry:
    name = f"cnn.{row['recipe']}_digits"
    seeds = int(row["seeds"])
    card = ModelCard(
        name=name,
        summary=row["summary"],
        architecture="3 convolutions, 2 linear layers, ReLU, 66,358 parameters; input (1, 8, 8)",
        recipe=row["recipe"],
        data="digits",
        threat=row["threat"] or None,
        source=row["source"],
        licence="MIT",
        weights=f"{name}.safetensors",
        sha256=row["sha256"],
        clean=int(row["clean"]) / TEST_IMAGES,
        n=TEST_IMAGES,
        robust=int(row["robust"]) / TEST_IMAGES,
        claim_threat=row["threat"] or "Linf:0.15",
        claim_attack="APGD-CE and APGD-T (20 steps, 9 targets) of torchattacks",
        certified=int(row["certified"]) / TEST_IMAGES if row["certified"] else None,
        clean_over_seeds=Spread(float(row["clean_mean"]), float(row["clean_deviation"]), seeds),
        robust_over_seeds=Spread(float(row["robust_mean"]), float(row["robust_deviation"]), seeds),
        clean_tolerance=float(row["clean_tolerance"]),
        tolerance=float(row["tolerance"]),
    )
    build = partial(build_zoo_model, card.weights, card.sha256)
    return ModelEntry(card, build, source="gauntlet.bench.models.cnn:cnn")


def _entries() -> list[ModelEntry]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [_entry(row) for row in csv.DictReader(file)]


STANDARD, GAUSS, FAST, PGD, TRADES, MART, AWP, IBP, PGD_L2 = _entries()
