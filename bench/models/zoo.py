"""The embedded zoo: a small network on scikit-learn's digits, trained by nine recipes, and another on pairs of them, by two.

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

The networks on pairs, of one seed (0), on the 797 test pairs at Linf 0.1, likewise by 20 steps and 9 targets:

    standard   92.1     3.4      3.4 (100 steps)
    pgd        99.1    75.5

`gauntlet train cnn.pgd_pairs` trains one of them again.

Importing this module does not import torch, so that listing cards is quick.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.bench.models.parts.card import ModelCard, ModelEntry, Spread

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).parent / "weights"
TABLE = Path(__file__).with_name("zoo.csv")
"""The figures: `clean`, `robust` and `certified` are numbers of test images, means and deviations are over the seeds."""
TEST_IMAGES = 797
NETWORKS = {
    "digits": (
        "gauntlet.bench.models.cnn:cnn",
        "3 convolutions, 2 linear layers, ReLU, 66,358 parameters; input (1, 8, 8)",
    ),
    "pairs": (
        "gauntlet.bench.models.cnn_pairs:cnn_pairs",
        "3 convolutions, 2 linear layers, ReLU, 86,148 parameters; input (1, 8, 16)",
    ),
}
"""The network for each data set, and its description."""


def build_zoo_model(file: str, sha256: str, folder: Path = WEIGHTS, network: str = NETWORKS["digits"][0]) -> nn.Module:
    """The zoo's network (`module:function`) with the weights of `file`, in eval mode.

    Raises ModelError if the file is missing or its sha256 is not that of the card, since results of other weights would
    appear under the card's name.
    """
    from safetensors.torch import load

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
    module, function = network.split(":")
    model: nn.Module = getattr(import_module(module), function)()
    model.load_state_dict(load(raw))
    return model.eval()


def _entry(row: Mapping[str, str]) -> ModelEntry:
    name = f"cnn.{row['recipe']}_{row['data']}"
    network, architecture = NETWORKS[row["data"]]
    card = ModelCard(
        name=name,
        summary=row["summary"],
        architecture=architecture,
        recipe=row["recipe"],
        data=row["data"],
        threat=row["threat"] or None,
        source=row["source"],
        licence="MIT",
        weights=f"{name}.safetensors",
        sha256=row["sha256"],
        clean=int(row["clean"]) / TEST_IMAGES,
        n=TEST_IMAGES,
        robust=int(row["robust"]) / TEST_IMAGES,
        claim_threat=row["claim_threat"],
        claim_attack="APGD-CE and APGD-T (20 steps, 9 targets) of torchattacks",
        certified=int(row["certified"]) / TEST_IMAGES if row["certified"] else None,
        clean_over_seeds=_spread(row, "clean"),
        robust_over_seeds=_spread(row, "robust"),
        clean_tolerance=float(row["clean_tolerance"] or 0),
        tolerance=float(row["tolerance"] or 0),
    )
    build = partial(build_zoo_model, card.weights, card.sha256, network=network)
    return ModelEntry(card, build, source=network)


def _spread(row: Mapping[str, str], figure: str) -> Spread | None:
    """Over the seeds; None where one seed was trained."""
    if not row["seeds"]:
        return None
    return Spread(float(row[f"{figure}_mean"]), float(row[f"{figure}_deviation"]), int(row["seeds"]))


def _entries() -> list[ModelEntry]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [_entry(row) for row in csv.DictReader(file)]


STANDARD, GAUSS, FAST, PGD, TRADES, MART, AWP, IBP, PGD_L2, STANDARD_PAIRS, PGD_PAIRS = _entries()
