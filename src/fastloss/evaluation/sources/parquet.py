"""Columns of Parquet files, by pyarrow."""

import contextlib
from itertools import accumulate

from fastloss.evaluation.sources.arrow import BatchSource, column_field
from fastloss.evaluation.sources.source import READ_BYTES, Source, read_errors, require_package


def open_parquet(path: str, member: str) -> Source:
    parquet = require_package("pyarrow.parquet", "parquet", path)
    with contextlib.ExitStack() as stack:
        with read_errors(path):
            file = parquet.ParquetFile(
                path, buffer_size=READ_BYTES, pre_buffer=False, page_checksum_verification=True
            )
            stack.callback(file.close, force=True)
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        field = column_field(path, member, file.schema_arrow)

        def batches(index, size):
            for group in range(index, len(groups)):  # one at a time: pyarrow would start the next
                for batch in file.iter_batches(size, [group], [field.name], use_threads=False):
                    yield batch.column(0)

        source = BatchSource(
            f"{path}:{field.name}",
            field.type,
            sum(groups),
            batches,
            starts=[0, *accumulate(groups)][: max(len(groups), 1)],
            file=path,
            close=stack.pop_all().close,
        )
    return source
