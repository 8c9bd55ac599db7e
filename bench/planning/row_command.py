"""Commands of `gauntlet run` that ask for some cells of a run again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gauntlet.attacks.registry.settings import Named
from gauntlet.attacks.registry.suites import SUITES
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.model_ref import MODEL_SETTINGS

_IN_MEMORY: Final = "memory:model."
"""The beginning of the specs of models that `gauntlet.evaluate` received in memory; no command can load them."""
_KEPT: Final = ("config", "plugin", "device", "precision", "batch-size", "checks")
"""Options of a run that its rows have in common, and that a plan does not name."""
_KEPT_FLAGS: Final = ("compile", "no-adversarials")


def pairing_options(cell: Cell, attacks: str) -> dict[str, Any] | None:
    """The options of `gauntlet run` that ask for these attacks on the pipeline of a cell, under its threat model.

    None for a model that was given in memory. Flags have the value True, options that are not given None.
    """
    model, data = cell.model, cell.data
    if model.spec.startswith(_IN_MEMORY):
        return None
    return {
        "model": model.spec,
        **{name.replace("_", "-"): value for name in MODEL_SETTINGS if (value := getattr(model, name)) is not None},
        "defense": str(cell.defense),
        "attacks": attacks,
        "threat": str(cell.threat),
        "data": data.spec,
        "samples": data.samples,
        "seed": str(cell.info.seed),
    }


def run_command(options: Mapping[str, Any], kept: Sequence[str] = ()) -> str:
    """`gauntlet run` with these options, and then these words."""
    given = [
        part
        for name, value in options.items()
        if value is not None
        for part in (f"--{name}", *([] if value is True else [_text(value)]))
    ]
    return shlex.join(["gauntlet", "run", *given, *kept])


def row_command(cells: Sequence[Cell], command: str, out: Path) -> str:
    """The command that repeats the row with these cells of a run into `out`; what is stored there is not computed again.

    `command`: that of the run, whose other options are kept. It is returned where the model was given in memory, and where the
    row has several seeds.
    """
    if not cells or len({cell.info.seed for cell in cells}) > 1:
        return command
    suites = dict.fromkeys(cell.info.suite for cell in cells)
    own = dict.fromkeys(attack_option(cell.attack) for cell in cells)
    options = pairing_options(cells[0], ",".join(suites if set(suites) <= set(SUITES) else own))
    return command if options is None else run_command({**options, "out": str(out)}, _kept(command))


def attack_option(attack: Named) -> str:
    """The attack as the value of an option; brackets tell it from a suite of the same name."""
    return f"{attack}()" if str(attack) in SUITES else str(attack)


def _kept(command: str) -> list[str]:
    """The words of a command, of `gauntlet run` or of pytest, that decide how cells are run, not which."""
    words = [re.sub("^--gauntlet-", "--", word) for word in shlex.split(command)]
    found = []
    for place, word in enumerate(words):
        name, sign, _ = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in (*_KEPT, *_KEPT_FLAGS):
            continue
        found += [word] if sign or name in _KEPT_FLAGS else words[place : place + 2]
    return found


def _text(value: Any) -> str:
    return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)
