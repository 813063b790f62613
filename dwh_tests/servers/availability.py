"""What a server needs of this machine, as questions: each answers None, or the plain reason why not."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

Need: TypeAlias = Callable[[], str | None]


def first_unmet(needs: Iterable[Need]) -> str | None:
    """The reason of the first need that is not met, or None."""
    return next((reason for need in needs if (reason := need()) is not None), None)


def package(module: str, requirement: str) -> Need:
    """The Python module `module`, which `requirement` installs."""
    return partial(_missing_package, module, requirement)


def tool(command: str, minimum: int = 0, version_option: str = "--version") -> Need:
    """A program on the PATH, of at least the major version `minimum`."""
    return partial(_missing_tool, command, minimum, version_option)


def program(command: str) -> str:
    """The path of a program; of Java's, the one in JAVA_HOME where that is set.

    Raises:
        FileNotFoundError: There is none. `tool` would have said so.
    """
    found = _find(command)
    if found is None:
        raise FileNotFoundError(f"{command} is not installed, or not on the PATH.")
    return found


def java(command: str = "java") -> Need:
    """Java 17 or newer: to run servers (`java`), or to compile what starts them (`javac`)."""
    return tool(command, 17, "-version")


def _find(command: str) -> str | None:
    java_home = os.environ.get("JAVA_HOME")
    if command in ("java", "javac") and java_home:
        return shutil.which(command, path=Path(java_home) / "bin")
    return shutil.which(command)


def _missing_package(module: str, requirement: str) -> str | None:
    if importlib.util.find_spec(module) is not None:
        return None
    return f"the Python package {requirement} is not installed"


def _missing_tool(command: str, minimum: int, version_option: str) -> str | None:
    wanted = f"{command} {minimum} or newer" if minimum else command
    path = _find(command)
    if path is None:
        return f"{wanted} is not installed, or not on the PATH"
    if not minimum:
        return None
    major, said = _version(path, version_option)
    if major is None:
        # macOS has a /usr/bin/java that only tells where to get one.
        return f"{wanted} is needed, and `{path} {version_option}` answers: {said or 'nothing'}"
    if major < minimum:
        return f"{wanted} is needed, and {path} is version {major}"
    return None


@cache
def _version(path: str, option: str) -> tuple[int | None, str]:
    """The major version that a program tells, and the first line of what it says."""
    try:
        answer = subprocess.run([path, option], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    text = (answer.stdout + answer.stderr).strip()
    first_line = text.partition("\n")[0]
    number = re.search(r"\d+", first_line)
    if answer.returncode != 0 or number is None:
        return None, first_line
    return int(number.group()), first_line
