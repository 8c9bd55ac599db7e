"""Choosing the gate of a run. Importing this module is cheap: every run imports it, with or without a gate."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.bench.config.schema import Config, ConfigError
from gauntlet.leaderboard.gate.conditions import read_conditions
from gauntlet.leaderboard.gate.policy import Policy, deviations

if TYPE_CHECKING:
    from gauntlet.leaderboard.gate.baseline import Baseline


@dataclass(frozen=True)
class Gate:
    """The baseline and the policy by which a run is judged."""

    file: Path
    baseline: Baseline
    policy: Policy
    early: bool = False
    """Whether to attack only as many samples as the verdicts need."""
    deviations: tuple[str, ...] = ()
    """What is looser or different here than in the baseline, which alone decides then (`leaderboard.gate.plan_policy`)."""
    renew: str = ""
    """The commands that renew the baseline, to be run on the base branch."""
    origin: str = ""
    """A sentence on the commit that the baseline is from; empty for a file of the working folder."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the baseline is from, and what its policy does not require because an earlier version accepted it."""
        origin = (self.origin,) if self.origin else ()
        if read_conditions(self.baseline.policy) is not None:
            return origin
        what, them = ("neither attacks, checks nor versions", "them") if self.baseline.policy else ("no policy", "one")
        missing = f"The baseline stores {what}, so that this run is held to none: to add {them}, run on the base branch"
        return *origin, f"{missing} `{self.renew}`."


def gate_of(
    file: Path, config: Config, policy: Policy, *, early: bool = False, baseline_from: str | None = None
) -> Gate:
    """The gate of the baseline in `file`, or of that file in the commit `baseline_from`.

    Raises BaselineError if it cannot be read, and as `gauntlet.bench.gate.baseline_from_git.baseline_from_git` does.
    """
    from gauntlet.leaderboard.gate.baseline_file import read_baseline

    place, origin = file, ""
    if baseline_from is not None:
        from gauntlet.bench.gate.baseline_from_git import baseline_from_git

        place, origin = baseline_from_git(file, baseline_from, config.out / "gate")
    baseline = read_baseline(place)
    accept = ["gauntlet", "baseline", "accept", str(config.out), "--out", str(file), "--reason", "TEXT"]
    accept += ["--artifact"] if baseline.artifact is not None else []
    looser = tuple(deviations(baseline.policy, config.gate.policy))
    return Gate(place, baseline, policy, early, looser, f"gauntlet run --no-gate && {shlex.join(accept)}", origin)


def refuse_bounds(policy: Policy, config: Config, early: str) -> None:
    """Raise ConfigError for floors and expectations, which need every sample, beside a gate that stops early.

    `early`: what asks for that gate, for the message.
    """
    for setting, bounds in (("min_robust of the gate", policy.floors), ("[[expect]]", config.expect)):
        if bounds:
            raise ConfigError(
                f"{setting} and {early} exclude each other: a bound needs every sample, and an early gate attacks only as "
                f"many as its verdicts need. Leave out {early}, or remove {setting} from the configuration"
            )


def choose_gate(
    config: Config,
    file: str | Path | None,
    *,
    allow_undecided: bool = False,
    early: bool = False,
    none: bool = False,
    baseline_from: str | None = None,
    prefix: str = "--",
) -> tuple[Gate | None, str]:
    """The gate of a run: the baseline in `file`, else the configured one, else None.

    The second value says why the configured baseline is not applied (its file does not exist yet, or options narrow the run);
    it is empty otherwise. What options give is the user's own choice: only the configuration is held against the baseline's
    policy. `none`: ignore the configured baseline. `baseline_from`: the commit to read it from. `prefix`: the beginning of the
    options' names, for error messages. Raises BaselineError for a baseline that cannot be read, ConfigError for bounds beside a
    gate that stops early, and ValueError for gate options without a gate.
    """
    policy = replace(config.gate.policy, allow_undecided=allow_undecided or config.gate.policy.allow_undecided)
    named, note = None if none else config.gate.baseline, ""
    if none and file is not None:
        raise ValueError(f"{prefix}no-gate and {prefix}gate={file} exclude each other: leave one of them out")
    if file is None and named is not None:
        if config.narrowed:
            note = f"Gate not applied: options narrow the run. To apply it nevertheless, add {prefix}gate={named}"
        elif baseline_from is None and not named.exists() and not automatic():
            return None, (
                f"Gate not applied: {named} does not exist yet. To make this run the first baseline: "
                f"gauntlet baseline accept {config.out} --reason TEXT"
            )
        else:
            file = named
    if file is not None:
        chosen = gate_of(Path(file), config, policy, early=early or config.gate.early, baseline_from=baseline_from)
        if chosen.early:
            refuse_bounds(policy, config, f"{prefix}gate-early" if early else "`early = true` of the gate")
        return chosen, ""
    for name, given in (
        ("allow-undecided", allow_undecided),
        ("gate-early", early),
        ("baseline-from", baseline_from is not None),
    ):
        if given:
            remedy = f"name the baseline with {prefix}gate=FILE, or leave it out"
            raise ValueError(f"{prefix}{name} needs a gate: {remedy}. {note}".strip())
    return None, note


def automatic() -> bool:
    """Whether an automatic service runs this, where no baseline is accepted: GitHub, GitLab and others set `CI`."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")
