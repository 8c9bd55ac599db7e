"""Networks of RobustBench's zoo from their checkpoints alone, without the package robustbench: the residual ones of CIFAR.

`robustbench_networks.csv` has, for each model, what a checkpoint does not say: mean and standard deviation of the images,
activation, and details of the blocks. It was made from the code at commit 78fcc9e of https://github.com/RobustBench/robustbench
(31 March 2025; Croce, Andriushchenko, Sehwag and others, MIT licence), with which the outputs were compared.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from torch import nn

from gauntlet.bench.models.files.safe_weights import read_checkpoint
from gauntlet.bench.models.files.stored_normaliser import stored_normalisers
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.parts.residual_network import ResidualNetwork, Variant

TABLE = Path(__file__).with_name("robustbench_networks.csv")
_WRAPPERS = ("", "module.", "model.", "module.model.")
"""Prefixes that wrappers leave on the keys."""
_UNUSED = "sub_block1."
"""Layers of the network of TRADES that no forward pass uses."""


class _Family:
    """How a family of networks names its layers, and how `ResidualNetwork` does."""

    def __init__(self, stem: str, block: str, first: int, layers: Mapping[str, str], ends: Mapping[str, str]) -> None:
        self.stem, self.first, self.layers = stem, first, layers
        self.block = re.compile(block + r"\.(.+?)\.(\w+)")
        self.ends = {stem: "stem", **ends}

    def renamed(self, name: str) -> str:
        """A key as `ResidualNetwork` calls it; empty for what the network does not use."""
        layer, _, last = name.rpartition(".")
        if layer in self.ends:
            return f"{self.ends[layer]}.{last}"
        found = self.block.fullmatch(name)
        if found is None or found[3] not in self.layers:
            return ""
        return f"groups.{int(found[1]) - self.first}.{found[2]}.{self.layers[found[3]]}.{found[4]}"


_NUMBERED = {
    f"{theirs}{number}": f"{ours}{number}"
    for theirs, ours in (("bn", "norm"), ("conv", "conv"))
    for number in (1, 2, 3)
}
_DEEPMIND = {"batchnorm_0": "norm1", "batchnorm_1": "norm2", "shortcut": "shortcut"}
_FAMILIES = {
    "wide": _Family(
        "conv1", r"block(\d)\.layer\.(\d+)", 1, _NUMBERED | {"convShortcut": "shortcut"}, {"bn1": "norm", "fc": "head"}
    ),
    "wide-deepmind": _Family(
        "init_conv",
        r"layer\.(\d)\.block\.(\d+)",
        0,
        _DEEPMIND | {"conv_0": "conv1", "conv_1": "conv2"},
        {"batchnorm": "norm", "logits": "head"},
    ),
    "preact": _Family(
        "conv1", r"layer(\d)\.(\d+)", 1, _NUMBERED | {"shortcut.0": "shortcut"}, {"bn": "norm", "linear": "head"}
    ),
    "preact-deepmind": _Family(
        "conv_2d",
        r"layer_(\d)\.(\d+)",
        0,
        _DEEPMIND | {"conv_2d_1": "conv1", "conv_2d_2": "conv2"},
        {"batchnorm": "norm", "logits": "head"},
    ),
    "resnet": _Family(
        "conv1",
        r"layer(\d)\.(\d+)",
        1,
        _NUMBERED | {"shortcut.0": "shortcut", "shortcut.1": "shortcut_norm"},
        {"bn1": "norm", "linear": "head"},
    ),
}


def has_network(name: str) -> bool:
    """Whether Gauntlet has a network for `DATASET/NORM/NAME`."""
    return name in _table()


def own_network(name: str, checkpoint: Path) -> tuple[nn.Module, tuple[float, ...] | None, tuple[float, ...] | None]:
    """The network of `DATASET/NORM/NAME` in eval mode with the weights of a checkpoint, and mean and std of its images.

    The state dict may be the file, or its entry `state_dict` (or `model` and the like; `last` where RobustBench takes that), with
    or without the prefixes `module.` and `model.`. A normaliser in the file takes precedence over that of the table. Raises
    ModelError for a file that cannot be read or is no such network.
    """
    facts = _table()[name]
    family = _FAMILIES[facts["family"]]
    state = read_checkpoint(_selected(checkpoint, facts["entry"])).state
    prefix = next((one for one in _WRAPPERS if f"{one}{family.stem}.weight" in state), None)
    if prefix is None:
        raise ModelError(
            f"checkpoint {str(checkpoint)!r} is not {facts['family']}, as {name} is: it has no {family.stem}.weight"
        )
    stored = stored_normalisers(state)
    left = {key for one in stored for key in one.keys}
    taken, strange = {}, []
    for key, value in state.items():
        bare = key.removeprefix(prefix)
        if renamed := family.renamed(bare):
            taken[renamed] = value
        elif key not in left and not bare.startswith(_UNUSED):
            strange.append(key)
    if strange:
        raise ModelError(f"checkpoint {str(checkpoint)!r} has {', '.join(strange[:3])}, which {name} does not have")
    try:
        network = ResidualNetwork(taken, _variant(facts))
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"checkpoint {str(checkpoint)!r} does not fit {name}: {error}") from error
    numbers = stored[0].mean if stored else _numbers(facts["mean"]), stored[0].std if stored else _numbers(facts["std"])
    return network.eval(), *numbers


def _selected(checkpoint: Path, entry: str) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}#{entry}") if entry else checkpoint


def _variant(facts: Mapping[str, str]) -> Variant:
    return Variant(
        activation="swish" if facts["activation"] == "swish" else "relu",
        activated_shortcut=facts["shortcut"] == "activated",
        one_sided=facts["family"].endswith("-deepmind"),
        activation_first=facts["family"] != "resnet",
    )


def _numbers(text: str) -> tuple[float, ...] | None:
    return tuple(float(value) for value in text.split()) or None


@cache
def _table() -> Mapping[str, Mapping[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}
