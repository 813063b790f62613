"""How Java servers are run."""

import os
from collections.abc import Sequence

from dwh_tests.servers.availability import program
from dwh_tests.servers.downloads import Download


def java_command(download: Download, main_class: str, memory: str, options: Sequence[str]) -> list[str]:
    """The command that runs a main class of a `java_server`, without its arguments.

    Settings of the virtual machine favour a quick start and little memory over speed.
    """
    class_path = os.pathsep.join([str(download.folder / "classes"), str(download.folder / "lib" / "*")])
    machine = [f"-Xmx{memory}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    log = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    return [program("java"), *machine, *log, *options, "-cp", class_path, main_class]
