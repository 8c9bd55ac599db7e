"""The figures that RobustBench publishes: from its `model_info` files if they are available, else from a table.

`robustbench.csv` was made from the files at commit 78fcc9e of https://github.com/RobustBench/robustbench (31 March 2025; Croce,
Andriushchenko, Sehwag and others, MIT licence). Reading them imports neither robustbench nor torch.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.sealed_json import parse_json
from gauntlet.leaderboard.results.user_text import read_user_text

TABLE = Path(__file__).with_name("robustbench.csv")
PAGE = "RobustBench (https://robustbench.github.io)"
_KEYS = {
    "architecture": "architecture",
    "venue": "venue",
    "link": "link",
    "eps": "eps",
    "clean": "clean_acc",
    "autoattack": "autoattack_acc",
    "external": "external",
    "reported": "reported",
    "corruptions": "corruptions_acc",
}
"""Columns of the table, and their keys in the files."""
_SAMPLES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
_SIZES = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32)}
_LICENCES = {
    "Ding2020MMA": "CC-BY-NC-SA-4.0",
    "Gowal2020Uncovering": "Apache-2.0",
    "Gowal2021Improving": "Apache-2.0",
    "Hendrycks2019Using": "Apache-2.0",
    "Pang2020Boosting": "Apache-2.0",
    "Rebuffi2021Fixing": "Apache-2.0",
    "Rony2019Decoupling": "BSD-3-Clause",
}
"""Licences by the beginning of the name; all other weights have the MIT licence."""


def robustbench_card(name: str) -> ModelCard:
    """The card of `DATASET/NORM/NAME` with its published figures; almost empty for an unknown name.

    Raises ModelError for a `model_info` file that cannot be read.
    """
    data, norm, model = name.split("/")
    facts = _facts(data, norm, model)
    eps = facts.get("eps", "")
    threat = str(ThreatModel.parse(f"{norm}:{eps}")) if eps and norm in ("Linf", "L2") else None
    venue, link = facts.get("venue", ""), facts.get("link", "")
    return ModelCard(
        name=f"robustbench:{name}",
        summary=f"RobustBench's {model}",
        architecture=facts.get("architecture", ""),
        data=data,
        threat=threat,
        source=" ".join(part for part in (venue, link) if part),
        licence=next((licence for start, licence in _LICENCES.items() if model.startswith(start)), "MIT"),
        input_size=_SIZES.get(data),
        published=tuple(_published(model, data, threat, facts)),
    )


def known_names(data: str, norm: str) -> list[str]:
    """The names of the table's models for a data set and a norm."""
    return [name for kept_data, kept_norm, name in _table() if (kept_data, kept_norm) == (data, norm)]


def _published(model: str, data: str, threat: str | None, facts: Mapping[str, str]) -> list[PublishedFigure]:
    clean, n = _share(facts, "clean"), _SAMPLES[data]
    doubt = "RobustBench calls AutoAttack's figure unreliable for this model" if facts.get("unreliable") else ""
    paper = facts.get("link", "")
    figures = []
    for column, attack, where, samples in (
        ("autoattack", "AutoAttack (standard)", PAGE, n),
        ("external", "the strongest known attack", PAGE, n),
        ("reported", "as its authors report", paper or PAGE, 0),
    ):
        robust = _share(facts, column)
        if robust is not None and threat is not None:
            figures.append(
                PublishedFigure(
                    model=model,
                    data=data,
                    clean=clean if column != "reported" else None,
                    robust=robust,
                    threat=threat,
                    attack=attack,
                    n=samples,
                    source=where,
                    note=doubt if column == "autoattack" else "",
                )
            )
    corrupted = _share(facts, "corruptions")
    if corrupted is not None:
        figures.append(
            PublishedFigure(
                model=model,
                data=data,
                clean=clean,
                robust=corrupted,
                threat="corruptions",
                attack="common corruptions, mean accuracy",
                n=n,
                source=PAGE,
            )
        )
    return figures


def _share(facts: Mapping[str, str], column: str) -> float | None:
    try:
        return round(float(facts.get(column, "")) / 100, 6)
    except ValueError:
        return None


def _facts(data: str, norm: str, model: str) -> Mapping[str, str]:
    for folder in _info_folders():
        file = folder / data / norm / f"{model}.json"
        if file.is_file():
            return _read(file)
    return _table().get((data, norm, model), {})


def _info_folders() -> list[Path]:
    """Possible folders of `model_info`: beside the checkpoints, and beside the package in a checkout."""
    folders = [Path(os.environ["GAUNTLET_MODELS"]).expanduser()] if os.environ.get("GAUNTLET_MODELS") else []
    package = importlib.util.find_spec("robustbench")
    if package is not None and package.origin:
        folders.append(Path(package.origin).parent.parent)
    return [folder / "model_info" for folder in folders]


def _read(file: Path) -> Mapping[str, str]:
    try:
        held: Any = parse_json(read_user_text(file))
        facts = {column: str(held[key]) for column, key in _KEYS.items() if held.get(key) is not None}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"RobustBench's file {str(file)!r} cannot be read: {error}") from error
    return {**facts, "unreliable": "yes" if held.get("unreliable") is True else ""}


@cache
def _table() -> Mapping[tuple[str, str, str], Mapping[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {(row["data"], row["norm"], row["name"]): row for row in csv.DictReader(file)}
