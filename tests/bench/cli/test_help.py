"""The help of every command: one line of purpose, options in groups with defaults, and the exit codes."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from gauntlet.bench.cli.main import COMMANDS, cli
from gauntlet.bench.cli.shared.options import OTHER, TITLES
from gauntlet.bench.config.options import OPTIONS

PATHS = [(), *((one.name,) for one in COMMANDS), ("baseline", "accept"), ("baseline", "diff")]
NAMES = [*TITLES.values(), OTHER]


def shown(*path):
    done = CliRunner().invoke(cli, [*path, "--help"])
    assert done.exit_code == 0, done.output
    return done.output


def sections(text):
    """The lines of each section of a help page by its heading."""
    found, name = {}, ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"([A-Z][\w ]*):", line):
            name = heading[1]
        found.setdefault(name, []).append(line)
    return {name: "\n".join(lines[1:]) for name, lines in found.items()}


def commands():
    for path in PATHS:
        command = cli
        for name in path:
            command = command.commands[name]
        yield path, command


@pytest.mark.parametrize("path", PATHS)
def test_every_option_stands_once_in_a_group_with_its_help(path):
    command = dict(commands())[path]
    page = sections(shown(*path))
    text = "\n".join(page.get(name, "") for name in NAMES)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert re.search(rf"^  {re.escape(parameter.opts[0])}\b", text, re.MULTILINE), parameter.name
            assert parameter.help, parameter.name
    headings = [name for name in page if name in NAMES]
    assert headings == [name for name in NAMES if name in headings]


@pytest.mark.parametrize("path", PATHS)
def test_every_option_with_a_value_shows_its_default_or_is_required(path):
    command = dict(commands())[path]
    context = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            _, text = parameter.get_help_record(context)
            assert "[default: " in text or "[required]" in text, parameter.name
            assert text.count("[default: ") <= 1, parameter.name


@pytest.mark.parametrize("path", PATHS)
def test_every_page_has_a_purpose_of_one_line_and_ends_with_the_exit_codes(path):
    command = dict(commands())[path]
    purpose = command.help.splitlines()[0]
    assert purpose.endswith(".")
    assert len(purpose) <= 64
    page = sections(shown(*path))
    assert list(page)[-1] == "Exit codes"
    codes = [int(code) for code in re.findall(r"^  (\d+) ", page["Exit codes"], re.MULTILINE)]
    assert codes == sorted(codes)
    assert {0, 2} <= set(codes) <= {0, 1, 2, 3, 4, 130}


def test_the_overview_shows_every_command_with_its_whole_purpose():
    overview = sections(shown())["Commands"]
    assert "..." not in overview
    for one in COMMANDS:
        assert re.search(rf"^  {one.name}  +{re.escape(one.help.splitlines()[0])}$", overview, re.MULTILINE)


@pytest.mark.parametrize("path", PATHS)
def test_every_argument_is_explained(path):
    command = dict(commands())[path]
    page = sections(shown(*path))
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    described = page.get("Arguments", "")
    assert len(re.findall(r"^  \S", described, re.MULTILINE)) == len(arguments)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_options_of_a_run_show_group_and_default(option):
    lines = " ".join(sections(shown("run"))[TITLES[option.group]].split())
    assert f"--{option.name}" in lines
    assert option.flag or option.default or option.name in ("weights", "mean", "std")
    if option.default:
        assert f"[default: {option.default}]" in lines


def test_pytest_shows_the_same_texts(tmp_path):
    command = [sys.executable, "-m", "pytest", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    text = " ".join(done.stdout.split())
    for option in OPTIONS:
        assert f"--gauntlet-{option.name}" in text
        assert " ".join(option.text().split()) in text
