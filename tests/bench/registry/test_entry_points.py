"""What installed distributions offer by entry points: found by name, loaded late, and harmless where it is broken."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import pytest

import gauntlet
from builders import ROOT
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.models.parts.card import ModelEntry
from gauntlet.bench.planning import plan
from gauntlet.bench.registries import ATTACKS, DEFENSES
from gauntlet.bench.registry import entry_points as outside
from gauntlet.bench.registry.registry import Registry
from gauntlet.bench.registry.validate import adopt_attack, checked
from gauntlet.leaderboard.report.cells_csv import read_cells

EXAMPLE = ROOT / "examples" / "plugin"

MODULE = """
import gauntlet

ENTRY = gauntlet.AttackEntry(
    gauntlet.AttackCard(name="x", summary="of a distribution", source="here", norms=("Linf",)), lambda threat: None
)

def give():
    return ENTRY

def register():
    gauntlet.register_attack("registering", ENTRY)

def register_another():
    gauntlet.register_attack("by-the-way", ENTRY)

def nothing():
    return 5

def fail():
    raise OSError("no licence")
"""


def install(folder, name, version="1.0", module="", text=MODULE, group="gauntlet.attacks", **points):
    """A distribution as pip leaves it: metadata, entry points and a module."""
    module = module or name.replace("-", "_")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"{key.replace('_', '-')} = {value.format(module)}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]), encoding="utf-8")
    (folder / f"{module}.py").write_text(text, encoding="utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed distributions that Python sees; modules from it are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(outside, "_entry_points", importlib.metadata.entry_points)
    yield folder
    for name in [name for name, one in sys.modules.items() if str(folder) in str(getattr(one, "__file__", ""))]:
        del sys.modules[name]


@pytest.fixture
def attacks(monkeypatch):
    """A registry of attacks with one of Gauntlet's own, in the place of the real one."""
    from gauntlet.bench import registries as registering

    registry = Registry("attack", "gauntlet.attacks", adopt_attack)
    registry.register("pgd", "gauntlet.attacks.pgd:ENTRY")
    monkeypatch.setattr(registering, "ATTACKS", registry)
    return registry


def imported(module):
    return module in sys.modules


# --- what an entry point may name ---


@pytest.mark.parametrize(
    ("point", "value"),
    [("entry", "{}:ENTRY"), ("giving", "{}:give"), ("registering", "{}:register")],
)
def test_an_entry_point_names_an_entry_or_a_function_that_returns_or_registers_it(site, attacks, point, value):
    install(site, "foo-attacks", **{point: value})
    found = attacks.get(point)
    assert found.card.name == point
    assert found.card.summary == "of a distribution"
    assert found.source_digest
    assert attacks.origin(point) == "foo-attacks 1.0"
    assert attacks.problems == ()


def test_names_are_known_without_loading_anything(site, attacks):
    install(site, "foo-attacks", entry="{}:ENTRY", broken="{}:missing")
    assert attacks.names() == ["broken", "entry", "pgd"]
    assert "entry" in attacks
    assert attacks.expand("p*") == ["pgd"]
    assert attacks.get("pgd").card.name == "pgd"
    assert not imported("foo_attacks")
    assert attacks.get("entry")
    assert imported("foo_attacks")


def test_a_module_that_registers_when_it_is_imported_may_be_named(site, attacks):
    install(site, "foo-attacks", registering="{}", text=MODULE + "\nregister()\n")
    assert attacks.get("registering").card.name == "registering"


def test_a_name_that_is_registered_by_the_way_is_found_when_nothing_else_has_it(site, attacks):
    install(site, "foo-attacks", some="{}:register_another")
    assert "by-the-way" not in attacks.names()
    assert attacks.get("by-the-way").card.name == "by-the-way"
    assert attacks.expand("by-the-way") == ["by-the-way"]
    assert attacks.origin("by-the-way") == "foo-attacks 1.0"


# --- what is broken ---

BROKEN = {
    "{}:missing": r"AttributeError: .*missing",
    "{}:nothing": r"ValueError: 'broken' is a int: give AttackEntry\(card, …\)",
    "{}:fail": "OSError: no licence",
    "{}.deeper:ENTRY": "ModuleNotFoundError",
    "{}:register_another": "ValueError: 'broken' is a NoneType",
    "{}:AttackEntry": "AttributeError",
}


@pytest.mark.parametrize("value", BROKEN)
def test_a_broken_entry_point_is_told_with_its_distribution_and_harms_nothing_else(site, attacks, value):
    install(site, "bad-attacks", "2.1", broken=value)
    install(site, "foo-attacks", entry="{}:ENTRY")
    told = rf"attack 'broken' of bad-attacks 2\.1 cannot be loaded \({BROKEN[value]}"
    with pytest.raises(LookupError, match=told + r".*\): repair or uninstall it"):
        attacks.get("broken")
    assert attacks.get("entry")
    assert attacks.get("pgd")
    assert attacks.expand("*e*") == sorted({"entry", *attacks.names("*e*")})
    with pytest.raises(LookupError, match=rf"unknown attack 'entyr'; did you mean entry\?.*; {told}"):
        attacks.get("entyr")
    assert len(attacks.problems) == 1


def test_a_module_that_fails_on_import_is_told_once(site, attacks):
    install(site, "bad-attacks", broken="{}:ENTRY", text="raise SystemExit('this ends it')\n")
    attacks.load_offers()
    attacks.load_offers()
    assert attacks.problems == ("attack 'broken' of bad-attacks 1.0 cannot be loaded (SystemExit: this ends it)",)
    assert attacks.names() == ["pgd"]


def test_half_registered_is_not_registered(site, attacks):
    install(site, "bad-attacks", registering="{}:ENTRY", text=MODULE + "\nregister()\nraise OSError('half')\n")
    with pytest.raises(LookupError, match="OSError: half"):
        attacks.get("registering")
    assert "registering" not in attacks.names()


def test_a_name_that_two_distributions_offer_is_neither_s(site, attacks):
    install(site, "foo-attacks", entry="{}:ENTRY")
    install(site, "goo-attacks", entry="{}:ENTRY")
    with pytest.raises(LookupError, match=r"of foo-attacks 1\.0 and of goo-attacks 1\.0 .*uninstall all but one"):
        attacks.get("entry")


def test_a_name_of_ours_stays_ours_and_that_is_told_when_listing(site, attacks):
    install(site, "foo-attacks", pgd="{}:ENTRY")
    assert attacks.get("pgd").card.summary != "of a distribution"
    assert attacks.problems == ()
    attacks.load_offers()
    assert attacks.problems == ("attack 'pgd' of foo-attacks 1.0 is not used: the name belongs to Gauntlet",)


@pytest.mark.parametrize("first", ["file", "installed"])
def test_what_a_user_registers_counts_before_what_is_installed(site, attacks, first):
    install(site, "foo-attacks", entry="{}:ENTRY")
    if first == "installed":
        assert attacks.get("entry").card.summary == "of a distribution"
    mine = AttackEntry(AttackCard(name="entry", summary="mine", source="here", norms=("Linf",)), lambda threat: None)
    gauntlet.register_attack("entry", mine)
    assert attacks.get("entry").card.summary == "mine"
    assert attacks.origin("entry") == __file__


def test_an_entry_of_another_kind_is_refused(site):
    install(site, "foo-models", group="gauntlet.models", net="{}:ENTRY")
    models = Registry("model", "gauntlet.models", partial(checked, ModelEntry))
    with pytest.raises(LookupError, match=r"'net' is a AttackEntry: give ModelEntry\(card, …\)"):
        models.get("net")


def test_a_plan_says_what_it_leaves_out_of_a_wildcard(site, attacks, monkeypatch):
    install(site, "bad-attacks", pgd_broken="{}:missing", entry="{}:ENTRY")
    monkeypatch.setattr(plan, "ATTACKS", attacks)
    made = plan.make_plan(load_config({"attacks": "pgd*", "model": "cnn.pgd_digits"}, folder=site))
    assert [cell.attack.name for cell in made.cells] == ["pgd"]
    (told,) = made.skipped
    assert told.startswith("attack 'pgd-broken' of bad-attacks 1.0 cannot be loaded (AttributeError")


# --- on the command line, in processes of their own ---


def test_a_run_that_needs_no_entry_point_is_not_disturbed_by_broken_ones_and_listing_warns(tmp_path, tiny):
    site = tmp_path / "site"
    install(site, "bad-attacks", "2.1", broken="{}:ENTRY", text="raise RuntimeError('half an upgrade')\n")
    project = tiny.write_project(tmp_path / "project", count=5)
    paths = {"PYTHONPATH": str(site)}
    named = ("--model", "model.py:build", "--data", "data.npz", "--threat", "Linf:0.1")
    ran = tiny.run_command(project, "run", *named, "--attacks", "fgsm", **paths)
    assert ran.returncode == 0, ran.stderr
    assert "bad-attacks" not in ran.stdout + ran.stderr
    told = "attack 'broken' of bad-attacks 2.1 cannot be loaded (RuntimeError: half an upgrade)"
    listed = tiny.run_command(project, "list", "attacks", "p*", **paths)
    assert listed.returncode == 0
    assert listed.stdout.startswith("pgd ")
    assert listed.stderr.splitlines() == [f"warning: {told}"]
    asked = tiny.run_command(project, "run", *named, "--attacks", "broken", **paths)
    assert asked.returncode == 2
    assert asked.stderr.splitlines() == [f"error: {told}: repair or uninstall it"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools builds the example")
def test_the_example_is_really_installed_and_found_by_its_entry_points(tmp_path, tiny):
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)
    pip = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, *pip, "--target", site, source],
        env=clean,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    here, paths = tmp_path / "here", {"PYTHONPATH": str(site)}
    here.mkdir()
    listed = tiny.run_command(here, "list", "attacks", "[bs]im*", **paths)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["bim", "simba"]
    assert all(line.endswith("(from gauntlet-extras 0.1.0)") for line in listed.stdout.splitlines())
    # Beside the plain file, whose names count first; the code is the same, and so are the results.
    shutil.copy(EXAMPLE / "extras.py", here)
    named = (
        "run",
        "--model",
        "energy",
        "--data",
        "stripes",
        "--samples",
        "30",
        "--defense",
        "levels",
        "--attacks",
        "simba,bim",
    )
    ran = tiny.run_command(here, *named, **paths)
    assert ran.returncode == 0, ran.stderr
    found = read_cells(here / "gauntlet-results" / "cells.csv")
    assert found["attack"].tolist() == ["simba", "bim"]
    assert (found["status"] == "ok").all()
    again = tiny.run_command(here, *named, "--plugin", "extras.py", **paths)
    assert again.returncode == 0, again.stderr
    assert "2 cells: 2 answered from the store" in again.stdout


def test_nothing_of_ours_is_taken_for_a_user_s():
    ours = [
        registry.get(name) for registry in (ATTACKS, DEFENSES) for name in registry.names() if not registry.origin(name)
    ]
    assert len(ours) > 50
    assert not any(entry.source_digest for entry in ours)
