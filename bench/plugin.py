"""The pytest plugin: `--gauntlet-…` options, one test a cell, and leaderboard and gate in the terminal summary.

It is loaded by every pytest run of the environment, so it imports nothing heavy until a test asks for a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gauntlet.bench.options import OPTIONS

if TYPE_CHECKING:
    from gauntlet.bench.session import Session
    from gauntlet.leaderboard.baseline import Baseline

_SESSION = pytest.StashKey["Session"]()
_STARTED = pytest.StashKey[str]()
_PROBLEM = pytest.StashKey[pytest.UsageError]()
_BASELINE = pytest.StashKey["Baseline"]()
_VERDICTS = pytest.StashKey[list[str]]()
_PROPERTY = "gauntlet_run"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of a run, as the command line has them."""
    group = parser.getgroup("gauntlet", "adversarial-robustness benchmark")
    for option in OPTIONS:
        extra: dict[str, Any] = {"action": "store_true"} if option.flag else {"metavar": option.metavar}
        if not option.flag:
            extra |= {"action": "append", "default": []} if option.many else {"type": option.kind, "default": None}
        group.addoption(f"--gauntlet-{option.name}", dest=f"gauntlet_{option.key}", help=option.help, **extra)


def pytest_configure(config: pytest.Config) -> None:
    """A baseline that cannot be read ends the run as a usage error, before anything is attacked."""
    file = config.getoption("gauntlet_gate")
    if file is None and config.getoption("gauntlet_allow_undecided"):
        raise pytest.UsageError(
            "gauntlet: --gauntlet-allow-undecided is about a gate: name it with --gauntlet-gate=FILE"
        )
    if file is None or hasattr(config, "workerinput"):
        return
    from gauntlet.leaderboard.baseline import BaselineError, read_baseline

    try:
        config.stash[_BASELINE] = read_baseline(Path(file))
    except BaselineError as error:
        raise pytest.UsageError(f"gauntlet: {error}") from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: the workers share the controller's start, so that they agree on what was stored before."""
    from gauntlet.bench.clock import now

    started = node.config.stash.setdefault(_STARTED, now())
    node.workerinput["gauntlet_started"] = started
    if any(node.config.getoption(f"gauntlet_{option.key}") not in (None, [], False) for option in OPTIONS):
        # Workers cannot end the run with a usage error; here a wrong option does.
        _session(node.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each cell of the plan."""
    if "gauntlet_cell" not in metafunc.fixturenames:
        return
    try:
        session = _session(metafunc.config)
    except pytest.UsageError as error:
        if hasattr(metafunc.config, "workerinput"):
            raise pytest.Collector.CollectError(str(error)) from None
        # Raised here it would be an error of this file, and pytest would go on.
        metafunc.config.stash[_PROBLEM] = error
        return
    metafunc.parametrize("gauntlet_cell", session.plan.cells)


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """Wrong options or configuration end the run as a usage error."""
    if _PROBLEM in config.stash:
        raise config.stash[_PROBLEM]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """`model × defense × attack`, unescaped."""
    return _session(config).title(val) if argname == "gauntlet_cell" else None


@pytest.fixture(scope="session")
def gauntlet(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The benchmark session of this pytest run: it runs cells, and knows the plan and the results folder."""
    session = _session(request.config)
    yield session
    session.close()


def _session(config: pytest.Config) -> Session:
    if _SESSION not in config.stash:
        from gauntlet.bench.session import Session, SessionError

        options = {option.key: config.getoption(f"gauntlet_{option.key}") for option in OPTIONS}
        worker = getattr(config, "workerinput", {})
        try:
            config.stash[_SESSION] = Session(
                options,
                folder=_folder(config),
                command=" ".join(["pytest", *_quoted(config)]),
                started=worker.get("gauntlet_started"),
                workers=int(worker.get("workercount", 1)),
            )
        except SessionError as error:
            raise pytest.UsageError(f"gauntlet: {error}") from error
    return config.stash[_SESSION]


def _folder(config: pytest.Config) -> Path:
    """Where the configuration is looked for: the working folder, or pytest's root where that has no file for it."""
    here = Path.cwd()
    return here if any((here / name).is_file() for name in ("gauntlet.toml", "pyproject.toml")) else config.rootpath


def _quoted(config: pytest.Config) -> list[str]:
    import shlex

    worker = getattr(config, "workerinput", {})
    arguments = worker.get("mainargv", ["pytest", *config.invocation_params.args])[1:]
    return [shlex.quote(str(one)) for one in arguments]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Judge the run, which may change the exit status. Where the store answered everything, nothing was timed: not saving
    times is then no warning."""
    import warnings

    if _BASELINE in session.config.stash:
        _judge(session, session.config.stash[_BASELINE])
    with warnings.catch_warnings():
        if _SESSION in session.config.stash:
            warnings.filterwarnings("ignore", "Not saving anything, no benchmarks")
        return (yield)


def _judge(session: pytest.Session, baseline: Baseline) -> None:
    config = session.config
    if config.option.collectonly or session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    from gauntlet.bench.gating import gate_all
    from gauntlet.leaderboard.gate import Policy

    policy = Policy(allow_undecided=config.getoption("gauntlet_allow_undecided"))
    passed, config.stash[_VERDICTS] = gate_all(_folders(config), baseline, policy)
    if not passed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _folders(config: pytest.Config) -> list[Path]:
    """The runs that the cells' reports name: what ran is told by them, under pytest-xdist too."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = [report for kind in reporter.stats.values() for report in kind] if reporter is not None else []
    found = {value for report in reports for name, value in getattr(report, "user_properties", ()) if name == _PROPERTY}
    return [Path(folder) for folder in sorted(found)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the leaderboard from the store and show it, then the gate's verdicts."""
    for folder in _folders(config):
        from gauntlet.bench.session import summary

        terminalreporter.section("gauntlet leaderboard")
        for line in summary(folder):
            terminalreporter.write_line(line)
    if _VERDICTS in config.stash:
        terminalreporter.section("gauntlet gate")
        for line in config.stash[_VERDICTS]:
            terminalreporter.write_line(line)
