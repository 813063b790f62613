"""What does not come with pip: how it is fetched, and where it lies afterwards."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dwh_tests.servers.availability import Need, first_unmet, java, program, tool
from dwh_tests.servers.cache import cache_root, fill_once

_HERE = Path(__file__).parent
# A version of our own choice: the one that an old Maven would take does not know newer poms.
_COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_TIMEOUT_SECONDS = 900
_TAIL_LINES = 25


class DownloadFailed(Exception):
    """A client of a package registry ended with an error; the message holds the end of what it said."""


@dataclass(frozen=True)
class Download:
    """Something to fetch once: `fill` puts it into a folder of the cache that is named after its version."""

    name: str
    version: str
    # Downloads with one client take turns: Maven's local repository is not made for two at a time.
    client: str
    needs: tuple[Need, ...]
    fill: Callable[[Path], None]

    @property
    def folder(self) -> Path:
        """Where it lies, or will."""
        return cache_root() / self.name / self.version

    def why_not(self) -> str | None:
        """Why it is not there and cannot be fetched; None when it is, or can."""
        return None if self.folder.is_dir() else first_unmet(self.needs)

    def fetch(self) -> bool:
        """Fetch it, unless it is there. True when it was fetched just now.

        Raises:
            DownloadFailed: The registry cannot be reached, or has no such package.
        """
        return fill_once(self.folder, self.client, self.fill)


def java_server(name: str) -> Download:
    """A server in the folder `name` beside this file: in `lib` its jars, in `classes` its main class."""
    source = _HERE / name
    digest = hashlib.sha256()
    for file in sorted(source.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return Download(
        name, digest.hexdigest()[:12], "maven", (java("javac"), tool("mvn")), partial(_build_java, source)
    )


def npm_package(name: str, version: str) -> Download:
    """An npm package with what it depends on, in `node_modules`."""
    return Download(name, version, "npm", (tool("node", 20), tool("npm")), partial(_npm, f"{name}@{version}"))


def go_program(module: str, version: str) -> Download:
    """A Go program, named as the last part of its module."""
    name = module.rpartition("/")[2]
    needs = (tool("go"),)
    return Download(name, version, "go", needs, partial(_go, f"{module}@{version}"))


def _build_java(source: Path, folder: Path) -> None:
    lib, classes = folder / "lib", folder / "classes"
    maven = [program("mvn"), "-B", "-q", "-ntp", "-f", str(source / "pom.xml")]
    run([*maven, _COPY_DEPENDENCIES, "-DincludeScope=runtime", f"-DoutputDirectory={lib}"])
    sources = [str(file) for file in source.glob("*.java")]
    run([program("javac"), "--release", "17", "-nowarn", "-cp", f"{lib}/*", "-d", str(classes), *sources])
    for settings in source.glob("*-site.xml"):
        shutil.copy(settings, classes)


def _npm(package: str, folder: Path) -> None:
    # Azurite asks for a newer Node than it needs, which is but a warning.
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    run([program("npm"), "install", "--prefix", str(folder), *options, package])


def _go(module: str, folder: Path) -> None:
    run([program("go"), "install", module], {"GOBIN": str(folder)})


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a registry's client to its end. Raises `DownloadFailed`."""
    try:
        result = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadFailed(f"{' '.join(command)} was not done after {_TIMEOUT_SECONDS} s.") from error
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-_TAIL_LINES:])
        raise DownloadFailed(f"{' '.join(command)} ended with code {result.returncode}:\n{tail}")
