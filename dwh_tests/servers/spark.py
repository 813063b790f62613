"""Apache Spark with Iceberg's runtime: another engine on our tables, in a process of its own."""

import base64
import json
import pickle
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from dwh_tests.servers.availability import first_unmet, java, package
from dwh_tests.servers.reaper import REAPER

# The version of Spark is part of the runtime's name, and has to be that of pyspark.
PACKAGES = "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0,org.xerial:sqlite-jdbc:3.50.3.0"
_DRIVER = Path(__file__).with_name("spark_driver.py")
_MARK = "@ "
_SETTINGS = {
    "spark.jars.packages": PACKAGES,
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
}


class SparkFailed(Exception):
    """A statement failed, or Spark did not start; the message is Spark's."""


class Spark:
    """Spark while its `with` block runs. It has no catalog of Iceberg until `use` names one."""

    @classmethod
    def why_not(cls) -> str | None:
        """Why this machine cannot run Spark, or None."""
        return first_unmet([java(), package("pyspark", "dwh_assets[spark]")])

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="dwh-spark-")))
            log = cleanup.enter_context((self.folder / "spark.log").open("wb"))
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_DRIVER), json.dumps(_SETTINGS)],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            cleanup.callback(self._stop)
            REAPER.watch(self._process.pid, self.folder)
            if self._answer() is None:
                raise SparkFailed(f"Spark did not start with {PACKAGES}.{self._said()}")
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def use(self, name: str, **properties: str) -> None:
        """Know a catalog under a name that was not used before."""
        # Without the last, Spark would keep on reading the version of a table that it saw last.
        settings = {"": "org.apache.iceberg.spark.SparkCatalog", **properties, "cache-enabled": "false"}
        for key, value in settings.items():
            setting = ".".join(part for part in ("spark.sql.catalog", name, key) if part)
            self.sql(f"SET `{setting}`=`{value}`")

    def sql(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement; return its rows. Raises `SparkFailed`."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(statement) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if not isinstance(answer, list):
            raise SparkFailed(answer or f"Spark has ended.{self._said()}")
        return answer

    def _answer(self) -> Any:
        """What the driver says next; None when it has ended."""
        assert self._process.stdout
        marked = (line.removeprefix(_MARK) for line in self._process.stdout if line.startswith(_MARK))
        line = next(marked, None)
        return None if line is None else pickle.loads(base64.b64decode(line))

    def _said(self) -> str:
        lines = (self.folder / "spark.log").read_text(errors="replace").strip().splitlines()
        return f" It said last: {lines[-1]}" if lines else " It said nothing."

    def _stop(self) -> None:
        """Let Spark end, and Java with it."""
        try:
            self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        REAPER.forget(self._process.pid)
