"""Runs one JSON line of SQL after the other, and answers each with a pickle in a line: what `Spark` runs.

A process of its own, since pyspark forks to start Java, and the fork of a process with threads may hang. Java
writes to the same output, hence the mark on our lines.
"""

import base64
import json
import pickle
import sys
from typing import Any

from pyspark.sql import SparkSession

MARK = "@ "


def say(answer: Any) -> None:
    """Answer with rows as dictionaries, or with an error's text."""
    print(MARK + base64.b64encode(pickle.dumps(answer)).decode(), flush=True)


def main() -> None:
    """Start Spark with the settings on the command line; end when there is no further line."""
    builder = SparkSession.builder.master("local[2]").appName("dwh_tests")
    for key, value in json.loads(sys.argv[1]).items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    say([])
    for line in sys.stdin:
        try:
            say([row.asDict(recursive=True) for row in session.sql(json.loads(line)).collect()])
        except Exception as error:
            say(str(error))
    session.stop()


if __name__ == "__main__":
    main()
