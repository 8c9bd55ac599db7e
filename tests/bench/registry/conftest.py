"""Registries and imports as they were before a test."""

import shutil
import sys

import pytest

from builders import ROOT
from gauntlet.bench.registries import ATTACKS, DATA, DEFENSES, MODELS


@pytest.fixture
def registries_as_before(monkeypatch):
    """What a test registers is forgotten after it, and so are the modules that it imports."""
    for registry in (ATTACKS, DATA, DEFENSES, MODELS):
        for name in ("_entries", "_registrants", "_problems"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def extras(tmp_path, monkeypatch):
    """The example's file in the working folder."""
    shutil.copy(ROOT / "examples" / "plugin" / "extras.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "extras.py"
