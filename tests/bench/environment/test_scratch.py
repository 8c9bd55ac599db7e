"""Where temporary files lie."""

from __future__ import annotations

import pytest

from gauntlet.bench.environment import scratch


@pytest.fixture
def memory(monkeypatch, tmp_path):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "_MEMORY", tmp_path)
    return tmp_path


def test_small_files_lie_in_memory(memory):
    assert scratch.scratch_folder(1000) == str(memory)


def test_large_ones_the_users_choice_and_systems_without_such_a_folder_lead_elsewhere(memory, monkeypatch):
    assert scratch.scratch_folder(2**40) is None
    monkeypatch.setattr(scratch, "_MEMORY", memory / "absent")
    assert scratch.scratch_folder(1000) is None
    monkeypatch.setattr(scratch, "_MEMORY", memory)
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert scratch.scratch_folder(1000) is None


def test_a_folder_that_is_nearly_full_is_left_alone(memory, monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda folder: type("", (), {"free": 7999})())
    assert scratch.scratch_folder(1000) is None
    assert scratch.scratch_folder(999) == str(memory)
