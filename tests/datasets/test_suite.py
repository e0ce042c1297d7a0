"""DatasetSuite on the four built-in sources."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq

from privkt.contracts import DataSource
from privkt.testing.dataset import CANARY, DatasetSuite


def records(columns):
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def placed(folder, data, suffix):
    path = folder / f"{len(list(folder.iterdir()))}{suffix}"
    path.write_bytes(data)
    return str(path)


class TestJsonLines(DatasetSuite):
    name = "json"

    def write(self, folder, columns):
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records(columns))
        return DataSource("json", "text", "label", path=placed(folder, lines.encode(), ".jsonl"))

    def broken(self, folder):
        def of(data):
            return DataSource("json", "text", "label", path=placed(folder, data, ".jsonl"))

        good = b'{"text": "a", "label": "b"}\n'
        bad = CANARY.encode()
        return {
            "not UTF-8": (of(good + b'{"text": "' + bad + b'\xff"}\n'), "line 2 (byte 49) is not"),
            "malformed": (of(good + b"\n" + b'{"text": "' + bad + b'"'), "line 3, column 23 is not valid JSON"),
            "no object": (of(good + b'"' + bad + b'"'), "line 2 must be a JSON object, got str"),
            "deep": (of(b'{"text": ' + b"[" * 200_000), "line 1 is not valid JSON"),
            "huge number": (of(b'{"text": ' + b"9" * 5000 + b"}"), "line 1 is not valid JSON"),
            "missing": (of(good + b'{"text": "' + bad + b'"}\n'), "row 2 (line 2): column 'label' is missing"),
            "a number": (of(good + b'{"text": 4821, "label": "x"}\n'), "column 'text' must hold text, got int"),
            "a truth value": (of(b'{"text": "a", "label": true}\n'), "text or a whole number, got bool"),
            "surrogate": (of(good + b'{"text": "\\ud800 ' + bad + b'", "label": "x"}'), "half of a surrogate pair"),
        }


class TestJsonArray(DatasetSuite):
    name = "json"

    def write(self, folder, columns):
        return DataSource(
            "json", "text", "label", path=placed(folder, json.dumps(records(columns), indent=1).encode(), ".json")
        )

    def broken(self, folder):
        def of(data):
            return DataSource("json", "text", "label", path=placed(folder, data, ".json"))

        return {
            "malformed": (of(b'[\n{"text": "' + CANARY.encode() + b'"]'), "line 2, column 23 is not valid JSON"),
            "no object": (
                of(b'[{"text": "a", "label": "b"}, ["' + CANARY.encode() + b'"]]'),
                "row 2 must be a JSON object",
            ),
        }


class TestCsv(DatasetSuite):
    name = "csv"
    features = DatasetSuite.features - {"nulls"}

    def write(self, folder, columns):
        path = folder / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return DataSource("csv", "text", "label", path=str(path))

    def broken(self, folder):
        def of(data, **options):
            return DataSource("csv", "text", "label", path=placed(folder, data, ".csv"), options=options)

        bad = CANARY.encode()
        return {
            "not UTF-8": (of(b"text,label\n" + bad + b"\xe9,b\n"), "line 2 (byte 22) is not"),
            "open quote": (of(b'text,label\na,b\n"' + bad + b",b\n"), "not valid CSV"),
            "too many cells": (
                of(b"text,label\na,b\n" + bad + b",b,c\n"),
                "row 2 (line 3) must have 2 cells like the header, got 3",
            ),
            "header twice": (of(b"text,text\na,b\n"), "column 2 repeats an earlier one"),
            "no header": (of(b""), "must have a header"),
            "delimiter": (of(b"text,label\na,b\n", delimiter=";;"), "option 'delimiter' must be one character"),
        }


class TestParquet(DatasetSuite):
    name = "parquet"

    def write(self, folder, columns):
        path = folder / "rows.parquet"
        arrays = {name: pa.array(list(cells), None if cells else pa.string()) for name, cells in columns.items()}
        pq.write_table(pa.table(arrays), path)
        return DataSource("parquet", "text", "label", path=str(path))

    def broken(self, folder):
        path = folder / "bad.parquet"
        bytes_column = pa.Array.from_buffers(
            pa.string(), 2, pa.array([b"ok", b"\xff\xfe" + CANARY.encode()], pa.binary()).buffers()
        )
        pq.write_table(pa.table({"text": bytes_column, "label": ["a", "b"]}), path)
        return {
            "no parquet": (
                DataSource("parquet", "text", "label", path=placed(folder, b"PAR1" + CANARY.encode(), ".parquet")),
                "is not a Parquet file that can be read",
            ),
            "not UTF-8": (DataSource("parquet", "text", "label", path=str(path)), "must hold UTF-8 text"),
        }


class TestHub(DatasetSuite):
    name = "hub"

    def write(self, folder, columns):
        import datasets

        path = folder / "saved"
        features = (
            None if next(iter(columns.values())) else datasets.Features({n: datasets.Value("string") for n in columns})
        )
        made = datasets.Dataset.from_dict({name: list(cells) for name, cells in columns.items()}, features=features)
        datasets.DatasetDict({"train": made}).save_to_disk(str(path))
        return DataSource("hub", "text", "label", path=str(path))

    def broken(self, folder):
        good = self.write(folder, {"text": ("a", "b"), "label": ("x", "y")})

        def of(path=good.path, **options):
            return DataSource("hub", "text", "label", path=path, options=options)

        (folder / CANARY).mkdir()
        return {
            "no split": (of(split="tset"), "has no split 'tset'; it has train"),
            "no saved data set": (of(str(folder / CANARY)), "did not load as one"),
            "both": (of(dataset="x"), "exclude each other"),
            "neither": (of(None), "`dataset` is missing"),
            "offline": (
                of(None, dataset="privkt/no-such-data-set"),
                "dataset 'privkt/no-such-data-set', split 'train' could not be",
            ),
        }
