"""Position-delete files: small, and read by everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dwh_tests.iceberg.conftest import Lake, lake, local

__all__ = ["lake"]
ROWS, DELETED = 1_000_000, 1_500


def test_scattered_positions_take_little_room_and_are_read_by_everybody(lake: Lake) -> None:
    """Thirty bits would tell each place; eleven the way from one to the next."""
    lake.write(pa.table({"id": np.arange(ROWS)}))
    gone = np.sort(np.random.default_rng(0).choice(ROWS, DELETED, replace=False))
    clauses = {"clauses": [{"when": "matched", "then": "delete"}]}
    lake.write(pa.table({"id": gone}), write_mode="merge", key_columns=["id"], merge=clauses)
    files = [Path(path) for path in lake.on_disk("-deletes.parquet")]
    positions = np.sort(np.concatenate([pq.read_table(file)["pos"].to_numpy() for file in files]))
    assert len(positions) == DELETED
    assert sum(file.stat().st_size for file in files) < 2.5 * DELETED + 1_000 * len(files)
    left = np.setdiff1d(np.arange(ROWS), gone)
    assert np.array_equal(np.sort(lake.table.scan().to_arrow()["id"].to_numpy()), left), "PyIceberg"
    assert lake.column("id") == left.tolist(), "DuckDB"
    assert {local(file.file_path) for file in lake.data_files()}.isdisjoint(map(str, files))
