"""The pytest plugin: `--gauntlet-…` options, one test for each cell, and leaderboard and gate in the terminal summary.

Every pytest run of the environment loads it, so it imports nothing heavy until a test requests a cell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gauntlet.bench.config.options import OPTIONS

if TYPE_CHECKING:
    from gauntlet.bench.config.schema import Config
    from gauntlet.bench.gate.choose_gate import Gate
    from gauntlet.bench.run.summary import Summary
    from gauntlet.bench.session.pytest_session import Session

_SESSION = pytest.StashKey["Session"]()
_STARTED = pytest.StashKey[str]()
_PROBLEM = pytest.StashKey[pytest.UsageError]()
_GATE = pytest.StashKey[tuple["Gate | None", str]]()
"""The gate, or None with the reason; set when the gate is chosen."""
_VERDICTS = pytest.StashKey[list[str]]()
_LEADERBOARDS = pytest.StashKey[list["Summary"]]()
_OUT = pytest.StashKey[Path]()
"""The results folder of the gate."""
_GATED = ("gate", "allow_undecided", "gate_early", "baseline_from")
"""Options that need a gate."""
_PROPERTY = "gauntlet_run"
_NOTE = "gauntlet_note"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a run, with the texts of the command line."""
    group = parser.getgroup("gauntlet", "adversarial-robustness benchmark")
    for option in OPTIONS:
        extra: dict[str, Any] = {"action": "store_true"} if option.flag else {"metavar": option.metavar}
        if not option.flag:
            extra |= {"action": "append", "default": []} if option.many else {"type": option.kind, "default": None}
        if option.bare is not None:
            extra |= {"nargs": "?", "const": option.bare}
        group.addoption(f"--gauntlet-{option.name}", dest=f"gauntlet_{option.key}", help=option.text(), **extra)


def pytest_configure(config: pytest.Config) -> None:
    """End the run with a usage error, before any attack, if the options name a baseline that cannot be read."""
    asked = any(config.getoption(f"gauntlet_{name}") for name in _GATED)
    if asked and not hasattr(config, "workerinput"):
        _gate(config)


def _gate(config: pytest.Config, read: Config | None = None) -> tuple[Gate | None, str]:
    """The gate of the run, or None with the reason; `read` is the configuration, if it is known. Raises UsageError."""
    if _GATE not in config.stash:
        from gauntlet.bench.config.schema import load_config
        from gauntlet.bench.gate.choose_gate import choose_gate
        from gauntlet.bench.gate.publish import remove_report
        from gauntlet.bench.gate.tracked_results import refuse_tracked
        from gauntlet.leaderboard.results.errors import StoreError

        options = _options(config)
        try:
            read = read or load_config(options, folder=_folder(config), file=options["config"])
            config.stash[_GATE] = choose_gate(
                read,
                options["gate"],
                allow_undecided=options["allow_undecided"],
                early=options["gate_early"],
                none=options["no_gate"],
                baseline_from=options["baseline_from"],
                prefix="--gauntlet-",
            )
            config.stash[_OUT] = read.out
            gate = config.stash[_GATE][0]
            if gate is not None:
                refuse_tracked(read.out, read.reuse)
            if gate is not None and not (config.option.collectonly or hasattr(config, "workerinput")):
                remove_report(read.out)
        except (ValueError, StoreError) as error:
            raise _usage(config, error) from error
        if gate is not None:
            _end_if_refused(config, gate)
    return config.stash[_GATE]


def _end_if_refused(config: pytest.Config, gate: Gate) -> None:
    """Raise UsageError for what is looser than the gate's baseline, or different."""
    from gauntlet.bench.gate.plan_check import refusal

    if found := refusal(gate):
        raise _usage(config, ValueError(found))


def _usage(config: pytest.Config, error: Exception) -> pytest.UsageError:
    """The error as wrong usage, announced on GitHub by the process that reports it."""
    from gauntlet.bench.gate.publish import announce_failure

    for line in [] if hasattr(config, "workerinput") else announce_failure(str(error)):
        sys.stderr.write(f"{line}\n")
    return pytest.UsageError(f"gauntlet: {error}")


def _options(config: pytest.Config) -> dict[str, Any]:
    return {option.key: config.getoption(f"gauntlet_{option.key}") for option in OPTIONS}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: give the workers the start time of the controller, so that they agree on which results are older."""
    from gauntlet.bench.environment.clock import now

    if node.config.getoption("gauntlet_ray") is not None:
        raise pytest.UsageError("gauntlet: --gauntlet-ray shares out the cells by itself: leave out -n")
    started = node.config.stash.setdefault(_STARTED, now())
    node.workerinput["gauntlet_started"] = started
    if any(value not in (None, [], False) for value in _options(node.config).values()):
        # A usage error must be raised here: workers cannot end the run with one.
        _session(node.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each cell of the plan."""
    if "gauntlet_cell" not in metafunc.fixturenames:
        return
    try:
        session = _session(metafunc.config)
    except pytest.UsageError as error:
        if hasattr(metafunc.config, "workerinput"):
            raise pytest.Collector.CollectError(str(error)) from None
        # Raised here, it would be a collection error of the file, and pytest would continue.
        metafunc.config.stash[_PROBLEM] = error
        return
    metafunc.parametrize("gauntlet_cell", session.cells)


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """End the run with a usage error for an invalid option or configuration."""
    if _PROBLEM in config.stash:
        raise config.stash[_PROBLEM]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """`model × defense × attack`, unescaped."""
    return _session(config).title(val) if argname == "gauntlet_cell" else None


@pytest.fixture(scope="session")
def gauntlet(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The benchmark session of this pytest run, which runs cells."""
    session = _session(request.config)
    yield session
    session.close()


def _session(config: pytest.Config) -> Session:
    if _SESSION not in config.stash:
        from gauntlet.bench.session.pytest_session import Session, SessionError

        worker = getattr(config, "workerinput", {})
        try:
            session = Session(
                _options(config),
                folder=_folder(config),
                command=" ".join(["pytest", *_quoted(config)]),
                started=worker.get("gauntlet_started"),
                workers=int(worker.get("workercount", 1)),
            )
        except SessionError as error:
            raise _usage(config, error) from error
        # The configured baseline is read before any attack, too.
        gate, _ = _gate(config, session.config)
        if gate is not None:
            _end_if_refused(config, session.hold(gate))
        config.stash[_SESSION] = session
    return config.stash[_SESSION]


def _folder(config: pytest.Config) -> Path:
    """The folder of the configuration: the working folder, or pytest's root directory if that has no configuration."""
    here = Path.cwd()
    return here if any((here / name).is_file() for name in ("gauntlet.toml", "pyproject.toml")) else config.rootpath


def _quoted(config: pytest.Config) -> list[str]:
    import shlex

    worker = getattr(config, "workerinput", {})
    arguments = worker.get("mainargv", ["pytest", *config.invocation_params.args])[1:]
    return [shlex.quote(str(one)) for one in arguments]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Write the leaderboard and judge the run, both of which may change the exit status.

    If all results were stored, pytest-benchmark has no times to save; its warning about that is suppressed.
    """
    import warnings

    if _SESSION in session.config.stash:
        from gauntlet.bench.session.time_columns import show_one_time

        show_one_time(session.config)
    _write_leaderboards(session)
    _judge(session)
    with warnings.catch_warnings():
        if _SESSION in session.config.stash:
            warnings.filterwarnings("ignore", "Not saving anything, no benchmarks")
        return (yield)


def _write_leaderboards(session: pytest.Session) -> None:
    """Write the leaderboards; a file that cannot be written fails the run. A run that stopped early has no leaderboard."""
    config = session.config
    gate, _ = config.stash.get(_GATE, (None, ""))
    if hasattr(config, "workerinput") or (gate is not None and gate.early):
        return
    leaderboards = config.stash[_LEADERBOARDS] = []
    for folder in _folders(config):
        from gauntlet.bench.run.summary import summary

        leaderboards.append(summary(folder, "pytest", profile=config.getoption("gauntlet_profile")))
    if any(one.problem for one in leaderboards) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _judge(session: pytest.Session) -> None:
    config = session.config
    finished = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if config.option.collectonly or not finished or hasattr(config, "workerinput"):
        return
    folders = _folders(config)
    if not folders and config.getoption("gauntlet_gate") is None:
        return
    gate, note = _gate(config)
    config.stash[_VERDICTS] = [note] if note else []
    if gate is None:
        return
    from gauntlet.bench.gate.judge_run import judge_all
    from gauntlet.bench.gate.publish import default_format, lines

    passed = True
    for judged in judge_all(folders, gate, config.stash[_OUT]):
        passed = passed and judged.report.passed
        config.stash[_VERDICTS] += [*lines(judged.report, default_format()), *judged.notes]
        for verdict in judged.report.verdicts:
            _record(config, verdict.title, verdict.line)
    _record(config, "passed", str(passed).lower())
    if not passed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _record(config: pytest.Config, name: str, value: str) -> None:
    """Add a property of the test suite to the JUnit report, if there is one."""
    for plugin in config.pluginmanager.get_plugins():
        add = getattr(plugin, "add_global_property", None)
        if callable(add):
            add(f"gauntlet.gate.{name}", value)


def _folders(config: pytest.Config) -> list[Path]:
    """The run folders named in the test reports."""
    return [Path(folder) for folder in _reported(config, _PROPERTY)]


def _reported(config: pytest.Config, property_: str) -> list[str]:
    """The values of a property in the test reports, which pytest-xdist sends to the controller too, sorted."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = [report for kind in reporter.stats.values() for report in kind] if reporter is not None else []
    pairs = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    return sorted({value for name, value in pairs if name == property_})


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show what was damaged, the leaderboards, then the gate's verdicts, below the table of times."""
    from gauntlet.leaderboard.results.escape import visible

    for note in _reported(config, _NOTE):
        terminalreporter.write_line(visible(note))
    for shown in config.stash.get(_LEADERBOARDS, []):
        terminalreporter.section("gauntlet leaderboard")
        for line in shown.lines:
            terminalreporter.write_line(line)
        if shown.problem:
            terminalreporter.write_line(f"ERROR: {shown.problem}")
    if config.stash.get(_VERDICTS, []):
        terminalreporter.section("gauntlet gate")
        for line in config.stash[_VERDICTS]:
            terminalreporter.write_line(line)
