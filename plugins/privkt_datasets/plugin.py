"""What this plugin declares; nothing heavy is imported here."""

from __future__ import annotations

from privkt.plugins.hookspec import hookimpl
from privkt.plugins.types import DatasetSpec


@hookimpl
def privkt_datasets() -> tuple[DatasetSpec, ...]:
    """Four sources, one set of rules."""
    return (
        DatasetSpec("json", "privkt_datasets.json_rows:JsonDataset", "A JSON file: one object a line, or an array."),
        DatasetSpec("csv", "privkt_datasets.csv_rows:CsvDataset", "A CSV file with a header; option `delimiter`."),
        DatasetSpec("parquet", "privkt_datasets.parquet_rows:ParquetDataset", "A Parquet file."),
        DatasetSpec(
            "hub",
            "privkt_datasets.hub_rows:HubDataset",
            "A Hugging Face dataset: option `dataset` for an id, or `path` for a folder made by save_to_disk.",
        ),
    )
