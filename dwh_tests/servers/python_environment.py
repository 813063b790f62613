"""Environments of their own for servers written in Python, whose packages would not go beside ours."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from dwh_tests.servers.availability import Need
from dwh_tests.servers.downloads import Download, run

_USABLE = "import sys, ensurepip, venv; sys.exit(sys.version_info[:2] < ({}, {}))"


def python(major: int, minor: int) -> Need:
    """A Python of at least this version that can make environments, be it this one or another."""
    return partial(_missing_python, major, minor)


def python_environment(
    name: str, version: str, requirements: Sequence[str], minimum: tuple[int, int]
) -> Download:
    """An environment with these packages; `environment_python` is its interpreter."""
    fill = partial(_make, tuple(requirements), minimum)
    return Download(name, version, "pip", (python(*minimum),), fill)


def environment_python(environment: Path) -> Path:
    """The interpreter of an environment. Its other programs know the folder in which it was made."""
    return environment / "bin" / "python"


def copy_duckdb_extensions(environment: Path, home: Path) -> None:
    """Put the extensions that came as packages to where DuckDB looks, should `home` be its user's home."""
    for found in environment.glob("lib/python*/site-packages/duckdb_extension_*/extensions/*/*"):
        folder = home / ".duckdb" / "extensions" / found.parent.name / _duckdb_platform()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, folder)


def _duckdb_platform() -> str:
    system = {"Darwin": "osx"}.get(platform.system(), platform.system().lower())
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{system}_{machine}"


def _make(requirements: tuple[str, ...], minimum: tuple[int, int], folder: Path) -> None:
    found = _find(*minimum)
    assert found, "fetched without asking whether it can be"
    run([found, "-I", "-m", "venv", str(folder)])
    run([str(environment_python(folder)), "-I", "-m", "pip", "install", "--quiet", *requirements])
    copy_duckdb_extensions(folder, folder / "home")


def _missing_python(major: int, minor: int) -> str | None:
    if _find(major, minor):
        return None
    return (
        f"there is no Python {major}.{minor} or newer with its `venv` (not on the PATH, nor pyenv's or uv's)"
    )


@cache
def _find(major: int, minor: int) -> str | None:
    usable = _USABLE.format(major, minor)
    return next((path for path in _candidates(major, minor) if _succeeds([path, "-c", usable])), None)


def _candidates(major: int, minor: int) -> Iterator[str]:
    yield sys.executable
    for name in (f"python{major}.{minor}", f"python{major}.{minor + 1}", f"python{major}"):
        if found := shutil.which(name):
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in (minor, minor + 1):
        yield from map(str, sorted(pyenv.glob(f"versions/{major}.{version}.*/bin/python"), reverse=True))
    if uv := shutil.which("uv"):
        yield from _said([uv, "python", "find", "--no-python-downloads", f">={major}.{minor}"])


def _said(command: Sequence[str]) -> list[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split(
            "\n"
        )[:1]
    except (OSError, subprocess.SubprocessError):
        return []


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
