"""Why a row has no rank, and what its flags advise: a sentence each, with the remedy as an option of the command line.

Every surface takes its sentences from here; `gauntlet.leaderboard.report.notes` phrases the remedies for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gauntlet.leaderboard.results.record import EVIDENCE, Flag
from gauntlet.leaderboard.rows.evidence import DECISIONS, TESTS
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.proportions import Proportion

ADAPTIVE = "adaptive"
_TAKE_ADAPTIVE = f"--attacks {ADAPTIVE}"
_ADVISED_ATTACK = re.compile(r"--attacks ([\w:]+)")
_WITHIN_ADAPTIVE = {"gauntlet"}
"""Attacks whose stages `adaptive` has, too."""
_BEYOND_ADAPTIVE = (
    f"The attack {ADAPTIVE} was run and leaves this open: write an attack for this model (docs/extending.md)."
)
_SEARCHES = {"black-box": "square", "decision-based": "hop_skip_jump"}
"""Attacks that every sample faces, by the technique that they add to those of `adaptive`."""
_NOT_SHOWN = "Nothing shows that the attack works here: no example could be planted, and no view of the model falls."
_QUIET = "A search by predicted classes that breaks none of the last 100 samples that stand would lift the block"
_DECLARE = (
    "Or declare what hides the gradient: register that part as a defense, with a substitute (docs/extending.md#a-defense), so "
    "that the model without it can be attacked too."
)
_DECLARED = (
    "Or give the defense a better substitute (DefenseEntry(substitute=…), docs/extending.md#a-defense), so that its gradient "
    "leads somewhere."
)
_NO_SAMPLES = "No sample was covered by every attack of the row: run the same command again."
_NOTHING_ATTACKED = "No attack was run: robust is what is right when clean. Add one: --attacks standard."
_ANSWERED = ("masked-gradients",)
"""Warnings that report what the attack which raised them has already done about it."""
_FEWEST = 10
"""Fewer samples than this say nothing of a clean accuracy at chance."""


@dataclass(frozen=True)
class Reason:
    """A reason why a row has no rank, or advice that stands on a row with a rank."""

    name: str
    """The name of the flag, or a word for other reasons."""
    sentence: str
    """The reason and the remedy; ends with a period."""
    blocks: bool
    """Whether the row has no rank because of it."""


def reasons(row: LeaderboardRow) -> tuple[Reason, ...]:
    """All reasons of a row, each sentence once; those that block its rank come first."""
    found = {reason.sentence: reason for reason in (*_blocking(row), *_advice(row))}
    return tuple(sorted(found.values(), key=lambda reason: not reason.blocks))


def _blocking(row: LeaderboardRow) -> Iterator[Reason]:
    for problem in row.problems:
        yield Reason(row.status if row.status != "ok" else "no attack", _closed(problem), blocks=True)
    if not row.problems and row.robust.n == 0:
        yield Reason("no samples", _NO_SAMPLES, blocks=True)
    elif not row.problems and not any(isinstance(entry, Proportion) for entry in row.attacks.values()):
        yield Reason("no attack", _NOTHING_ATTACKED, blocks=True)
    for flag in row.flags:
        if flag.stands(row.answered):
            yield Reason(flag.name, _advised(flag, row), blocks=True)
    if row.randomised and "eot" not in row.techniques and not any("eot" in flag.needs for flag in row.flags):
        sentence = f"The model is randomised: its figures need attacks on the expectation over its draws (EOT): {_TAKE_ADAPTIVE}."
        yield Reason("randomised", sentence, blocks=True)


def _advice(row: LeaderboardRow) -> Iterator[Reason]:
    names = {flag.name for flag in row.flags}
    for flag in row.flags:
        if flag.severity == "warn" and flag.name not in _ANSWERED and not _followed(flag, row):
            yield Reason(flag.name, _advised(flag, row), blocks=False)
    if not names & {"normalisation", "class-order"} and (sentence := _at_chance(row)):
        yield Reason("clean-accuracy", sentence, blocks=False)


def _followed(flag: Flag, row: LeaderboardRow) -> bool:
    """Whether the row has faced an attack that the flag advises."""
    run = {label.partition("(")[0] for label in row.attacks}
    run |= _WITHIN_ADAPTIVE if ADAPTIVE in run else set()
    return not run.isdisjoint(_ADVISED_ATTACK.findall(flag.message))


def _at_chance(row: LeaderboardRow) -> str:
    """A sentence if the clean model is no better than one that always answers the most frequent class."""
    labels, n = row.worst_case.label, len(row.worst_case)
    counts = np.unique(labels, return_counts=True)[1]
    right = int(row.worst_case.correct.sum())
    if n < _FEWEST or len(counts) < 2 or right > counts.max():
        return ""
    return (
        f"The model gets {right} of {n} clean images right, and one class answered for all would get {counts.max()}: look at "
        "its weights, at the order of its classes, and at the normalisation that it expects (--mean and --std)."
    )


def _advised(flag: Flag, row: LeaderboardRow) -> str:
    """The flag's message with a remedy that the row has not had yet, and with what the reader should declare."""
    message = _closed(flag.message)
    if flag.severity == "warn":
        return _with_attacks(message, [], row)
    needed = [name for name in flag.needs if name not in row.answered]
    missing = [name for name in needed if name != EVIDENCE and name not in TESTS]
    adaptive = row.suite == ADAPTIVE or ADAPTIVE in row.attacks
    if not adaptive or missing or not set(needed) & {EVIDENCE, *TESTS}:
        text = _with_attacks(message, missing, row)
        if adaptive:
            return f"{text} {_declare(row)}" if EVIDENCE in flag.needs else text
        shown = EVIDENCE not in needed or _TAKE_ADAPTIVE in text
        return text if shown else f"{text} The figure needs an attack that is shown to work here: {_TAKE_ADAPTIVE}."
    kept = " ".join(_without(message, _TAKE_ADAPTIVE))
    if EVIDENCE not in needed:
        return f"{kept} {_BEYOND_ADAPTIVE} {_declare(row)}"
    return f"{kept} {_NOT_SHOWN} {_QUIET}: {_longer_search(row)}. {_declare(row)}"


def _with_attacks(message: str, missing: list[str], row: LeaderboardRow) -> str:
    """The message with the attacks that add the missing techniques."""
    if row.suite != ADAPTIVE and ADAPTIVE not in row.attacks:
        offered = not missing or _TAKE_ADAPTIVE in message
        on_all = " that every standing sample faces" if set(missing) & row.techniques else ""
        return (
            message
            if offered
            else f"{message} The figure needs attacks by {_listed(missing)}{on_all}: {_TAKE_ADAPTIVE}."
        )
    kept = _without(message, _TAKE_ADAPTIVE)
    if missing and set(missing) <= set(_SEARCHES):
        if DECISIONS in missing and DECISIONS in row.techniques:
            kept.append(f"The search by predicted classes still found examples at its end: {_longer_search(row)}.")
        else:
            added = ",".join([_TAKE_ADAPTIVE, *(_SEARCHES[technique] for technique in missing)])
            kept.append(f"The figure needs a search without gradients that every standing sample faces: {added}.")
    elif missing or len(kept) < len(_sentences(message)):
        kept.append(_BEYOND_ADAPTIVE)
    return " ".join(kept)


def _longer_search(row: LeaderboardRow) -> str:
    """The option that adds a search by decisions, or a longer one."""
    more = ", with more queries" if "hop_skip_jump" in row.attacks else ""
    return f"{_TAKE_ADAPTIVE},hop_skip_jump{more}"


def _declare(row: LeaderboardRow) -> str:
    """What a reader should declare, so that an attack can make use of it."""
    return _DECLARE if row.defense == "none" else _DECLARED


def _without(message: str, option: str) -> list[str]:
    """The sentences that do not offer the option."""
    return [sentence for sentence in _sentences(message) if option not in sentence]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) +(?=[A-Z])", text)


def _closed(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
