"""`gauntlet list`: registered names, with a line each. Models are not built, and no library of attacks is imported."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from gauntlet.bench.cli.shared.options import command, load_plugins_named, plugin_option
from gauntlet.bench.environment.exit_codes import EXIT_PASSED, EXIT_USAGE
from gauntlet.leaderboard.results.escape import visible


@dataclass(frozen=True)
class Kind:
    """One kind of registered entry."""

    registry: str
    """Its name in `gauntlet.bench.registries`, which is imported when the command runs."""
    summary: str
    """What the entries are, and the option that takes their names."""
    traits: Callable[[Any], str] = lambda card: ""
    """What follows the summary of an entry's card."""


def _attack_traits(card: Any) -> str:
    reported = f"; report as: {card.report_as}" if card.report_as else ""
    return f" [{', '.join(card.norms)}; {card.kind}; {card.source}{reported}]"


def _defense_traits(card: Any) -> str:
    gradient, random = "" if card.differentiable else "not ", "randomised" if card.randomised else "deterministic"
    return f" [{gradient}differentiable, {random}; {card.source}]"


KINDS: Mapping[str, Kind] = {
    "models": Kind("MODELS", "models of the embedded zoo and of plugins (--model)"),
    "attacks": Kind("ATTACKS", "attacks, native and of other libraries (--attacks)", _attack_traits),
    "defenses": Kind("DEFENSES", "defenses at inference (--defense)", _defense_traits),
    "data": Kind("DATA", "data sets (--data)"),
    "certificates": Kind("CERTIFICATES", "proofs of robustness (--attacks)", _attack_traits),
    "corruptions": Kind("CORRUPTIONS", "common corruptions (--attacks)"),
}
"""What can be listed, beside suites. A new registry is one line here."""
SUITES = "suites"
"""Suites are lists of attacks, and have no registry."""
_SUITES_SUMMARY = "lists of attacks (--attacks)"
ARGUMENTS = {
    "KIND": f"{', '.join(KINDS)} or {SUITES}. [default: the kinds themselves]",
    "PATTERN": "Shell wildcard, such as 'cnn.*'. [default: *]",
}


@command("list", exits=(EXIT_PASSED, EXIT_USAGE), arguments=ARGUMENTS)
@click.argument("kind", metavar="[KIND]", type=click.Choice([*KINDS, SUITES]), required=False)
@click.argument("pattern", default="*")
@plugin_option()
def list_command(kind: str | None, pattern: str, plugins: tuple[str, ...]) -> None:
    """List models, attacks, defenses, data sets and other entries.

    Without KIND the kinds are listed, each with the number of its entries. The list includes entries that plugins and installed
    packages register. Models from other sources are named SOURCE:NAME, such as robustbench:NAME or hf:OWNER/REPOSITORY
    (docs/models.md).
    """
    load_plugins_named(plugins)
    if kind is None:
        for line in overview():
            click.echo(line)
        return
    found = entries(kind, pattern)
    for problem in problems(kind):
        click.echo(visible(f"warning: {problem}"), err=True)
    if not found:
        near = difflib.get_close_matches(pattern, [name for name, _ in entries(kind, "*")], 3, 0.4)
        meant = f"; did you mean {', '.join(near)}?" if near else ":"
        raise click.UsageError(visible(f"no {kind} match {pattern!r}{meant} `gauntlet list {kind}` shows all"))
    # Names and summaries may come from plugins and installed packages.
    shown = [(visible(name), visible(summary)) for name, summary in found]
    width = max(len(name) for name, _ in shown)
    for name, summary in shown:
        click.echo(f"{name:<{width}}  {summary}")


def overview() -> list[str]:
    """A line for each kind: its name, the number of its entries, and what they are."""
    from gauntlet.attacks.registry import suites

    counted = [(name, len(_loaded(name).names()), kind.summary) for name, kind in KINDS.items()]
    rows = [*counted, (SUITES, len(suites.SUITES), _SUITES_SUMMARY)]
    width = max(len(name) for name, _, _ in rows)
    return [
        *(f"{name:<{width}}  {count:>3}  {summary}" for name, count, summary in rows),
        "List a kind: gauntlet list KIND [PATTERN]. Models of other sources, and files: docs/models.md, docs/data.md.",
    ]


def entries(kind: str, pattern: str) -> list[tuple[str, str]]:
    """(name, summary) of the entries of a kind that match a shell wildcard, sorted."""
    if kind == SUITES:
        from gauntlet.attacks.registry import suites

        names = sorted(name for name in suites.SUITES if fnmatch.fnmatch(name, pattern))
        return [(name, _members(suites.SUITES[name])) for name in names]
    registry = _loaded(kind)
    found = []
    for name in registry.names(pattern):
        card = registry.get(name).card
        found.append((name, f"{card.summary}{KINDS[kind].traits(card)}{_origin(registry.origin(name))}"))
    return found


def _members(norms: Mapping[Any, Any]) -> str:
    """The attacks of a suite, once for all norms with the same attacks."""
    found: dict[str, list[str]] = {}
    for norm, members in norms.items():
        found.setdefault(", ".join(member.spec for member in members), []).append(norm)
    return "; ".join(f"{', '.join(same)}: {members}" for members, same in found.items())


def problems(kind: str) -> tuple[str, ...]:
    """A sentence for each installed entry of a kind that cannot be used."""
    return () if kind == SUITES else tuple(_registry(kind).problems)


def _registry(kind: str) -> Any:
    from gauntlet.bench import registries

    return getattr(registries, KINDS[kind].registry)


def _loaded(kind: str) -> Any:
    """The registry of a kind, with the entries that installed packages offer."""
    registry = _registry(kind)
    registry.load_offers()
    return registry


def _origin(origin: str) -> str:
    return f" (from {origin})" if origin else ""
