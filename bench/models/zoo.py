"""The embedded zoo: one small network on scikit-learn's digits, trained by five recipes.

The figures are those of the shipped weights (seed 0) on the 797 test images, at Linf 0.15 under APGD-CE and APGD-T of
20 steps. Beside them, in percent: with 100 steps, and mean ± standard deviation over seeds with 20 steps.

    recipe     clean   robust   100 steps   seeds   clean        robust (lowest to highest)
    standard   97.4     6.9      6.9        10      97.0 ± 0.4    8.7 ± 2.7 ( 4.8 to 13.2)
    gauss      98.5    39.5     39.6        10      98.5 ± 0.2   37.7 ± 1.8 (34.5 to 39.5)
    fast       99.2    67.4     67.1        10      99.3 ± 0.1   67.1 ± 1.0 (65.7 to 68.4)
    pgd        98.9    72.8     72.4         6      99.0 ± 0.1   73.0 ± 1.2 (71.6 to 74.9)
    trades     98.1    76.9     76.5         6      98.0 ± 0.2   77.3 ± 0.6 (76.5 to 78.2)

A tolerance is the distance of the shipped figure from the mean plus 3 standard deviations, rounded up. Three seeds
would understate it: the undefended network's robust accuracy varies most.

Importing this module imports no torch, so that cards are listed quickly.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.bench.models.card import ModelCard, ModelEntry

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).parent / "weights"


def build_zoo_model(file: str, sha256: str, folder: Path = WEIGHTS) -> nn.Module:
    """The zoo's network with the weights of `file`, in eval mode.

    Raises ModelError where the file is missing, or where its sha256 is not the card's: results on other weights would
    stand under the card's name.
    """
    from safetensors.torch import load

    from gauntlet.bench.models.classifier import ModelError
    from gauntlet.bench.models.cnn import cnn

    repair = (
        "install the package again (pip install --force-reinstall --no-deps robust-gauntlet), or in a checkout restore "
        f"bench/models/weights/{file}; to evaluate weights of your own, name them with weights="
    )
    path = folder / file
    if not path.is_file():
        raise ModelError(f"weights file {str(path)!r} is not there: {repair}")
    # Hashed and loaded from the same bytes, so that nothing can change in between.
    raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise ModelError(
            f"weights file {str(path)!r} is not the one shipped: its sha256 is {found}, not {sha256}: {repair}"
        )
    model = cnn()
    model.load_state_dict(load(raw))
    return model.eval()


def _entry(
    recipe: str,
    summary: str,
    source: str,
    sha256: str,
    *,
    threat: str | None,
    clean: float,
    robust: float,
    clean_tolerance: float,
    tolerance: float,
) -> ModelEntry:
    name = f"cnn.{recipe}_digits"
    card = ModelCard(
        name=name,
        summary=summary,
        architecture="3 convolutions, 2 linear layers, ReLU, 66,358 parameters; input (1, 8, 8)",
        recipe=recipe,
        data="digits",
        threat=threat,
        source=source,
        licence="MIT",
        weights=f"{name}.safetensors",
        sha256=sha256,
        clean=clean,
        n=797,
        robust=robust,
        claim_threat="Linf:0.15",
        claim_attack="APGD-CE and APGD-T (20 steps, 9 targets) of torchattacks",
        clean_tolerance=clean_tolerance,
        tolerance=tolerance,
    )
    return ModelEntry(card, partial(build_zoo_model, card.weights, sha256), source="gauntlet.bench.models.cnn:cnn")


STANDARD = _entry(
    "standard",
    "cross-entropy on clean images",
    "the undefended baseline",
    "628344cfb26eb26bf242edb08594f9618af11fad631b5268a81d2c196c2d733c",
    threat=None,
    clean=776 / 797,
    robust=55 / 797,
    clean_tolerance=0.02,
    tolerance=0.10,
)
GAUSS = _entry(
    "gauss",
    "trained on images with Gaussian noise, sigma 0.25",
    "Gilmer et al. 2019, arXiv 1901.10513",
    "04557cbe80e79e35ae77bf6c62c5065f0c90def4ee92bbcacd0a49719862b87e",
    threat=None,
    clean=785 / 797,
    robust=315 / 797,
    clean_tolerance=0.01,
    tolerance=0.08,
)
FAST = _entry(
    "fast",
    "adversarial training, FGSM with random start",
    "Wong, Rice, Kolter 2020, arXiv 2001.03994",
    "2ea0be38cdb3113e2714671df6b188f7e0bd7a7bfc30fa3746c9fdf76de8dcc6",
    threat="Linf:0.15",
    clean=791 / 797,
    robust=537 / 797,
    clean_tolerance=0.01,
    tolerance=0.04,
)
PGD = _entry(
    "pgd",
    "adversarial training, PGD with 10 steps",
    "Madry et al. 2018, arXiv 1706.06083",
    "bec0f102f7b416f8fb4f66bd072ed7deebe11739a1b3ef3bc04bd6d24d7def83",
    threat="Linf:0.15",
    clean=788 / 797,
    robust=580 / 797,
    clean_tolerance=0.01,
    tolerance=0.04,
)
TRADES = _entry(
    "trades",
    "TRADES, beta 6, 10 steps",
    "Zhang et al. 2019, arXiv 1901.08573",
    "8c6402b01d57b6b70fcf97977e08a7e98d36f50e87f71ca74c606040e66798d9",
    threat="Linf:0.15",
    clean=782 / 797,
    robust=613 / 797,
    clean_tolerance=0.01,
    tolerance=0.03,
)
