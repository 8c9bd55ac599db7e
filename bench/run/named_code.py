"""The Python code that a stored run names: files and modules that verifying it, or drawing its pictures, would run."""

from __future__ import annotations

from pathlib import Path

from gauntlet.bench.data.data_name import parse_data_name, path_settings
from gauntlet.bench.data.formats.suffixes import is_data_file
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.sources.parse_source import parse_source
from gauntlet.bench.registries import MODELS
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.results.escape import visible


class UntrustedCodeError(ValueError):
    """A stored run names code, and nobody has said that it may run; the message lists it."""


def refuse_code(run: Run, *, trust: bool, by_hand: bool, models: bool = True) -> None:
    """Raise UntrustedCodeError if the run names code, unless `trust`.

    `by_hand`: its plugins were given by the user in place of its own. `models`: its models would be built, too.
    """
    named = {} if trust else named_code(run, plugins=not by_hand, models=models)
    if named:
        listed = ", ".join(f"{visible(code)} ({what})" for code, what in named.items())
        raise UntrustedCodeError(
            f"{run.root} names code that would run on this machine: {listed}. Nothing was run. Read it and add --trust; --plugin "
            "names plugins of your own in place of those of the folder"
        )


def named_code(run: Run, *, plugins: bool = True, models: bool = True) -> dict[str, str]:
    """What each named file or module is in the run: `plugin`, `model` or `data`, in the order of the plan."""
    found = dict.fromkeys(run.plugins if plugins else (), "plugin")
    for cell in run.plan.cells:
        if models and (code := _of_model(cell.model.spec)):
            found.setdefault(code, "model")
        if code := _of_data(cell.data.spec):
            found.setdefault(code, "data")
    return found


def _of_model(spec: str) -> str:
    if spec in MODELS:
        return ""
    try:
        source = parse_source(spec)
    except ModelError:
        # Building it raises the same error, before anything runs.
        return ""
    if source is not None:
        if source.kind == "torchscript":
            return source.name
        return source.name.rpartition(":")[0] if source.kind == "blackbox" else ""
    return spec.rpartition(":")[0]


def _of_data(spec: str) -> str:
    if parse_data_name(spec) is not None:
        return ""
    path: Path = path_settings(spec)[0]
    return "" if path.is_dir() or is_data_file(path) else spec.rpartition(":")[0]
