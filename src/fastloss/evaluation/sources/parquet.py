"""Columns of Parquet files, by pyarrow."""

import contextlib
from collections.abc import Iterator
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
        starts = [0, *accumulate(groups)]
        field = column_field(path, member, file.schema_arrow)

        def batches(index, size):
            for group in range(index, len(groups)):  # one at a time: pyarrow would start the next
                with _null_lists(starts[group], groups[group]):
                    for batch in file.iter_batches(size, [group], [field.name], use_threads=False):
                        yield batch.column(0)

        source = BatchSource(
            f"{path}:{field.name}",
            field.type,
            sum(groups),
            batches,
            starts=starts[: max(len(groups), 1)],
            file=path,
            close=stack.pop_all().close,
        )
    return source


@contextlib.contextmanager
def _null_lists(first: int, rows: int) -> Iterator[None]:
    """Explains an error of releases of pyarrow that cannot read null among lists of fixed size."""
    try:
        yield
    except ValueError as error:
        if "Expected all lists to be of size" not in str(error):
            raise
        raise ValueError(
            f"a list in rows {first} to {first + rows - 1} is null, which this release of pyarrow "
            f"cannot read in a column of lists of fixed size ({error})"
        ) from error
