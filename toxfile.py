"""A runner of tox whose environments may share a directory: tox's own makes it anew whenever the name changes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from tox.plugin import impl
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner
from tox.tox_env.register import ToxEnvRegister


class SharedInfo(Info):
    """What tox keeps of a directory: Python, requirements, extras, but not which environment made it."""

    def compare(
        self, value: Any, section: str, sub_section: str | None = None
    ) -> AbstractContextManager[tuple[bool, Any | None]]:
        """Compare with what is kept, as tox does, whatever the environment's name."""
        if section == "ToxEnv":
            value = {**value, "name": "shared"}
        return super().compare(value, section, sub_section)


class SharedRunner(VirtualEnvRunner):
    """`runner = shared`: environments with equal `env_dir`, dependencies and extras are installed once."""

    @staticmethod
    def id() -> str:
        """The runner's name in tox.ini."""
        return "shared"

    @property
    def cache(self) -> Info:
        """What is kept of the directory."""
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """Register the runner."""
    register.add_run_env(SharedRunner)
