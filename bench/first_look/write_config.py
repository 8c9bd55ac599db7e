"""The configuration that follows from a first look: a commented gauntlet.toml, and with a gate a workflow for GitHub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.first_look.look import Look
from gauntlet.bench.first_look.next_command import run_options
from gauntlet.bench.first_look.workflow import WORKFLOW_TEXT, requirements

CONFIG, REQUIREMENTS = Path("gauntlet.toml"), Path("requirements-robustness.txt")
WORKFLOW = Path(".github/workflows/robustness.yml")
BASELINE = "robustness/baseline.json"
MEANINGS = {
    "model": "FILE.py:FUNCTION, or another form of docs/models.md; a list compares several",
    "weights": "loaded into the model; FILE#ENTRY selects an entry",
    "mean": "subtracted from images in [0, 1], for each channel",
    "std": "by which the difference is divided",
    "randomised": "the model answers the same image differently",
    "not_differentiable": "autograd gives no useful gradient",
    "logits": "the entry of the model's output that holds its logits",
    "binary": "one logit for two classes",
    "classes": "a file with the classes that the model may predict",
    "data": "a registered name, a file, a folder of images by class, or FILE.py:FUNCTION",
    "samples": "the first so many; more samples make the intervals narrower",
    "threat": "norm and radius for images in [0, 1]; a list measures several",
    "attacks": "a suite, or a list of attacks with settings such as 'pgd(steps=100)'",
    "plugin": "files that register models, attacks, defenses or data sets",
}
"""What stands behind each key that is written."""
_MORE = """
# Other keys, with their defaults. Every option of `gauntlet run` is a key; `gauntlet run --help` shows all.
# defense = ["none"]              # also ["none", "jpeg(quality=50)"]: `gauntlet list defenses`
# seed = 0
# checks = "default"              # of gradient masking: "all" runs attacks of their own, "none" runs none
# precision = "auto"
# device = "auto"
# out = "gauntlet-results"

# A bound that must hold, else the exit code is 1; names are wildcards.
# [[expect]]
# model = "*"
# min_robust = 0.5
"""
_GATE = f"""
# Changes are compared with an accepted run, sample by sample: docs/ci.md.
[gate]
baseline = "{BASELINE}"
# margin = 0.02                   # the drop that must be ruled out, a share of the samples
# early = true                    # attack no more samples than that takes, after `baseline accept --test sequential`
"""


def config_text(found: Look, threat: str | None = None, plugins: Sequence[str] = (), *, gate: bool = False) -> str:
    """gauntlet.toml for a model that was looked at, with its data; `gate`: with the table of a gate."""
    options = {**({"plugin": list(plugins)} if plugins else {}), **run_options(found, threat)}
    pairs = [(f"{name} = {_value(value)}", MEANINGS.get(name, "")) for name, value in options.items()]
    width = 2 + max(len(pair) for pair, _ in pairs)
    lines = [f"{pair:<{width}}# {meaning}" if meaning else pair for pair, meaning in pairs]
    head = "# Written by `gauntlet init` after a look at the model. To run it: gauntlet run\n\n"
    return head + "\n".join(lines) + "\n" + _MORE + (_GATE if gate else "")


def config_files(
    found: Look, threat: str | None = None, plugins: Sequence[str] = (), *, ci: bool = False
) -> dict[Path, str]:
    """The texts of the files to write, by their paths in the project; `ci`: with a workflow and what it installs."""
    files = {CONFIG: config_text(found, threat, plugins, gate=ci)}
    if ci:
        files |= {WORKFLOW: WORKFLOW_TEXT, REQUIREMENTS: requirements(package_version("robust-gauntlet"))}
    return files


def _value(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(_value(part) for part in value)}]"
    return repr(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)
