"""Parquet files, by pyarrow."""

from __future__ import annotations

from typing import Any

from privkt_datasets.table import Table, TableDataset


class ParquetDataset(TableDataset):
    """`path` names the file; only the columns that the config names are read."""

    def read(self) -> Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.file()
        found: dict[str, Any] = {}
        rows = 0
        try:
            names = pq.read_schema(path).names
            wanted = {self.source.text, self.source.label, self.options.id, *self.options.columns}
            table = pq.ParquetFile(path).read(columns=[name for name in names if name in wanted])
            rows = table.num_rows
            found = {name: table.column(name).to_pylist() if name in wanted else () for name in names}
            fault = ""
        except (pa.ArrowException, OSError) as error:
            fault = f"is not a Parquet file that can be read ({type(error).__name__}); write it again"
        except UnicodeDecodeError:
            fault = "must hold UTF-8 text, and a cell does not; write it again"
        if fault:
            self.refuse(fault)
        return Table(found, rows)
