"""Choosing the gate of a run. Importing this module is cheap: every run imports it, with or without a gate."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.bench.config.schema import Config
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

    @property
    def notes(self) -> tuple[str, ...]:
        """What the baseline's policy does not bind, because an earlier version accepted it."""
        if read_conditions(self.baseline.policy) is not None:
            return ()
        what = "neither attacks, checks nor versions" if self.baseline.policy else "no policy"
        return (
            f"The baseline stores {what}, so that nothing binds them here: to add them, run on the base branch `{self.renew}`.",
        )


def gate_of(file: Path, config: Config, policy: Policy, *, early: bool = False, name: Path | None = None) -> Gate:
    """The gate of the baseline in `file`, which users know as `name`. Raises BaselineError if it cannot be read."""
    from gauntlet.leaderboard.gate.baseline_file import read_baseline

    baseline = read_baseline(file)
    artifact = " --artifact" if baseline.artifact is not None else ""
    accept = shlex.join(
        ["gauntlet", "baseline", "accept", str(config.out), "--out", str(name or file), "--reason", "TEXT"]
    )
    looser = tuple(deviations(baseline.policy, config.gate.policy))
    return Gate(file, baseline, policy, early, looser, f"gauntlet run --no-gate && {accept}{artifact}")


def choose_gate(
    config: Config,
    file: str | Path | None,
    *,
    allow_undecided: bool = False,
    early: bool = False,
    none: bool = False,
    prefix: str = "--",
) -> tuple[Gate | None, str]:
    """The gate of a run: the baseline in `file`, else the configured one, else None.

    The second value says why the configured baseline is not applied (its file does not exist yet, or options narrow the run);
    it is empty otherwise. What options give is the user's own choice: only the configuration is held against the baseline's
    policy. `none`: ignore the configured baseline. `prefix`: the beginning of the options' names, for error messages. Raises
    BaselineError for a baseline that cannot be read, and ValueError for gate options without a gate.
    """
    policy = replace(config.gate.policy, allow_undecided=allow_undecided or config.gate.policy.allow_undecided)
    named, note = None if none else config.gate.baseline, ""
    if none and file is not None:
        raise ValueError(f"{prefix}no-gate and {prefix}gate={file} exclude each other: leave one of them out")
    if file is None and named is not None:
        if config.narrowed:
            note = f"Gate not applied: options narrow the run. To apply it nevertheless, add {prefix}gate={named}"
        elif not named.exists():
            return None, (
                f"Gate not applied: {named} does not exist yet. To make this run the first baseline: "
                f"gauntlet baseline accept {config.out} --reason TEXT"
            )
        else:
            file = named
    if file is not None:
        return gate_of(Path(file), config, policy, early=early or config.gate.early), ""
    for name, given in (("allow-undecided", allow_undecided), ("gate-early", early)):
        if given:
            remedy = f"name the baseline with {prefix}gate=FILE, or leave it out"
            raise ValueError(f"{prefix}{name} needs a gate: {remedy}. {note}".strip())
    return None, note
