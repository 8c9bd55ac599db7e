"""`gauntlet list` shows no invisible character of a name or a summary that a plugin registers."""

from __future__ import annotations

from click.testing import CliRunner

from gauntlet.bench.cli import list_command
from gauntlet.bench.cli.main import cli


def test_control_and_bidirectional_characters_are_escaped(monkeypatch):
    hostile = [("a\x1b[2Jb", "\u202edesrever\nnext line"), ("plain", "a summary")]
    monkeypatch.setattr(list_command, "entries", lambda kind, pattern: hostile)
    monkeypatch.setattr(list_command, "problems", lambda kind: ("from \u2066elsewhere\x07",))
    done = CliRunner().invoke(cli, ["list", "models"])
    assert done.exit_code == 0, done.output
    assert not {"\x1b", "\u202e", "\u2066", "\x07"} & set(done.output)
    assert "a\\u001b[2Jb  \\u202edesrever next line" in done.output
    assert "warning: from \\u2066elsewhere\\u0007" in done.output
