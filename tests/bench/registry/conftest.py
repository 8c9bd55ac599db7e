"""The example of a plugin."""

import shutil

import pytest

from builders import ROOT


@pytest.fixture
def extras(tmp_path, monkeypatch):
    """The example's file in the working folder."""
    shutil.copy(ROOT / "examples" / "plugin" / "extras.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "extras.py"
