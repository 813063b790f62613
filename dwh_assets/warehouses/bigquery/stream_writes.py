"""Few rows into a table by the Storage Write API: done in a second, where a load job takes several.

A pending stream shows nothing until it is committed, and then all of it at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from dwh_assets.errors import TerminalError, UnavailableError
from dwh_assets.warehouses.bigquery.faults import explained

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

# A request may have ten million bytes, what is around the rows included.
_REQUEST_BYTES = 4 << 20


def write_rows(client: BigQueryWriteClient, table_path: str, rows: pa.Table) -> None:
    """Add the rows in one step. Raises `DwhError`: then none of them are in the table, or all.

    `table_path` is `projects/…/datasets/…/tables/…`.
    """
    from google.cloud.bigquery_storage_v1 import types

    with explained(f"Rows could not be written into {table_path}"):
        pending = types.WriteStream(type_=types.WriteStream.Type.PENDING)
        stream = client.create_write_stream(parent=table_path, write_stream=pending).name
        # Requests on a stream are sent to where the stream is.
        routing = (("x-goog-request-params", f"write_stream={stream}"),)
        for answer in client.append_rows(_requests(stream, rows), metadata=routing):
            if answer.error.code:
                raise TerminalError(f"{table_path} does not take the rows: {answer.error.message}.")
        finished = client.finalize_write_stream(name=stream)
        if finished.row_count != rows.num_rows:
            raise UnavailableError(
                f"Of {rows.num_rows:,} rows for {table_path}, {finished.row_count:,} arrived.",
                remedy="Repeat the call.",
            )
        commit = types.BatchCommitWriteStreamsRequest(parent=table_path, write_streams=[stream])
        answered = client.batch_commit_write_streams(commit)
        if answered.stream_errors:
            raise TerminalError(
                f"{table_path} does not take the rows: {answered.stream_errors[0].error_message}."
            )


def _requests(stream: str, rows: pa.Table) -> Iterator[types.AppendRowsRequest]:
    from google.cloud.bigquery_storage_v1 import types

    offset = 0
    for batch in _small(rows):
        data = types.AppendRowsRequest.ArrowData(
            rows=types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
        )
        if not offset:
            schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
            data.writer_schema = schema
        yield types.AppendRowsRequest(write_stream=stream, offset=offset, arrow_rows=data)
        offset += batch.num_rows


def _small(rows: pa.Table) -> Sequence[pa.RecordBatch]:
    parts = max(1, -(-rows.nbytes // _REQUEST_BYTES))
    batches: list[pa.RecordBatch] = rows.combine_chunks().to_batches(
        max_chunksize=max(1, rows.num_rows // parts)
    )
    return batches
