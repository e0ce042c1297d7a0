"""Hugging Face datasets: an id of the hub, or a folder made by `save_to_disk`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from privkt_datasets.options import text_option
from privkt_datasets.table import Table, TableDataset


class HubDataset(TableDataset):
    """`dataset` is an id, with `split` (train), `config` and `revision`; or `path` is a folder on this machine.

    Label columns with class names of their own give those names. With HF_HUB_OFFLINE=1 only the local cache is used.
    """

    own_options = ("dataset", "split", "config", "revision")

    def read(self) -> Table:
        split = text_option(self.source, "split", "train") or "train"
        data = self._from_folder(Path(self.source.path), split) if self.source.path else self._from_hub(split)
        wanted = {self.source.text, self.source.label, self.options.id, *self.options.columns}
        columns = {name: self._column(data, name) if name in wanted else () for name in data.column_names}
        return Table(columns, len(data))

    def _from_folder(self, path: Path, split: str) -> Any:
        import datasets

        if self.source.options.get("dataset") is not None:
            self.refuse("`path` and `dataset` exclude each other; keep one")
        if not path.is_dir():
            self.refuse("`path` must be a folder made by `save_to_disk`; for an id of the hub write `dataset`")
        try:
            found = datasets.load_from_disk(str(path))
        except (OSError, ValueError, IndexError) as error:
            # IndexError: the library cannot load back what was saved without a row.
            fault = "it is empty" if isinstance(error, IndexError) else type(error).__name__
        else:
            if isinstance(found, datasets.Dataset):
                return found
            if split in found:
                return found[split]
            self.refuse(f"has no split {split!r}; it has {', '.join(sorted(found))}")
        self.refuse(f"`path` must be a folder made by `save_to_disk`, and did not load as one ({fault})")

    def _from_hub(self, split: str) -> Any:
        name = text_option(self.source, "dataset")
        if name is None:
            self.refuse("`dataset` is missing; add the id of a dataset, or `path` for a folder made by save_to_disk")
        import datasets

        config, revision = text_option(self.source, "config"), text_option(self.source, "revision")
        try:
            return datasets.load_dataset(name, config, split=split, revision=revision)
        except Exception as error:  # whatever the library, its network or its cache raises
            fault = type(error).__name__
        self.refuse(
            f"dataset {name!r}, split {split!r} could not be loaded ({fault}); check the id and the split, or, without "
            "a network, load it once where there is one, or save it to a file and use the source json or parquet"
        )

    def _column(self, data: Any, name: str) -> list[Any]:
        import datasets

        feature, values = data.features[name], list(data[name])
        if isinstance(feature, datasets.ClassLabel):
            return [feature.int2str(v) if isinstance(v, int) and 0 <= v < feature.num_classes else v for v in values]
        return values
