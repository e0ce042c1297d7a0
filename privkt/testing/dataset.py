"""DatasetSuite: rows come back as they were written, and bad files are refused without showing what is in them."""

from __future__ import annotations

import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.contracts import Dataset, DataSource, Rows
from privkt.plugins import PluginManager, get_manager
from privkt.privacy import RefusedInput
from privkt.testing.strategies import labelled_rows

CANARY = "canary-4821"
COMMON = ("id", "columns", "label_map", "limit")
LABELS = ("negative", "positive")
TEXTS = (f"{CANARY} one", f"{CANARY} two", f"{CANARY} three")
NAMES = ("negative", "positive", "negative")


class DatasetSuite(ABC):
    """Subclass in a test module: `name` is the source, `write` makes its data.

    `features` says what the format and its options can express; what it lacks is skipped. "names": columns have names;
    "nulls": null differs from empty text; "numbers": labels may be numbers; the others are options of that name.
    """

    name: str = ""
    features: frozenset[str] = frozenset({"names", "nulls", "numbers", "id", "columns", "label_map", "limit"})

    @abstractmethod
    def write(self, folder: Path, columns: Mapping[str, Sequence[Any]]) -> DataSource:
        """Writes columns of equal length and gives their source: text "text", label "label", no labels."""

    def rows(self) -> st.SearchStrategy[Rows]:
        """Rows that the format can hold."""
        return labelled_rows()

    def need(self, *features: str) -> None:
        """Skips a test of what the format or its options lack."""
        for feature in features:
            if feature not in self.features:
                pytest.skip(f"the source has no {feature}")

    def broken(self, folder: Path) -> Mapping[str, tuple[DataSource, str]]:
        """{what is wrong: (source, words its refusal must hold)} for faults of the format itself, `CANARY` inside."""
        return {}

    def manager(self) -> PluginManager:
        """Where the plugin is looked up."""
        return get_manager()

    def make(self, source: DataSource) -> Dataset:
        """The dataset that a config would get."""
        return self.manager().create("dataset", self.name, source)

    def refused(self, make_and_load: Callable[[], Any]) -> str:
        """The refusal's message, after checking that neither it nor its traceback shows private text."""
        with pytest.raises(RefusedInput) as caught:
            make_and_load()
        error = caught.value
        assert CANARY not in str(error), "a refusal must not show what is in the data"
        for fault in _chain(error):
            assert CANARY not in repr(fault), "a chained exception holds what is in the data"
            assert CANARY not in repr(vars(fault)), "a chained exception holds what is in the data"
        assert CANARY not in "".join(traceback.format_exception(error))
        return str(error)

    def plain(self, folder: Path, **changes: Any) -> DataSource:
        """Three good rows; `changes` replace fields of the source."""
        source = self.write(folder, {"text": TEXTS, "label": NAMES})
        return replace(source, **{"labels": LABELS, **changes})

    def load(self, source: DataSource) -> Rows:
        return self.make(source).load()

    def test_rows_come_back_as_they_were_written(self) -> None:
        # Inside, so that each subclass has a property of its own: hypothesis ties examples to one caller.
        @settings(max_examples=60, deadline=None)
        @given(rows=self.rows())
        def holds(rows: Rows) -> None:
            assert rows.label is not None
            labels = tuple(sorted(set(rows.label)))
            with tempfile.TemporaryDirectory() as folder:
                source = self.write(Path(folder), {"text": rows.text, "label": rows.label})
                found = self.load(replace(source, labels=labels))
            assert found == Rows(rows.text, rows.label, rows.ids)

        holds()

    def test_without_a_label_column_there_are_no_labels(self, tmp_path: Path) -> None:
        source = replace(self.write(tmp_path, {"text": TEXTS}), label=None)
        assert self.load(source) == Rows(TEXTS, None, ("1", "2", "3"))

    def test_numbers_stand_for_declared_labels_by_position(self, tmp_path: Path) -> None:
        self.need("numbers")
        source = self.write(tmp_path, {"text": TEXTS, "label": (0, 1, 0)})
        assert self.load(replace(source, labels=LABELS)).label == NAMES

    def test_a_label_map_wins_over_position(self, tmp_path: Path) -> None:
        self.need("numbers", "label_map")
        source = self.write(tmp_path, {"text": TEXTS, "label": (0, 1, 0)})
        mapped = replace(source, labels=LABELS, options={**source.options, "label_map": {1: "negative", 0: "positive"}})
        assert self.load(mapped).label == ("positive", "negative", "positive")

    def test_ids_and_further_columns(self, tmp_path: Path) -> None:
        self.need("id", "columns")
        columns = {"text": TEXTS, "label": NAMES, "key": ("c", "a", "b"), "note": ("x", "y", "z")}
        source = self.write(tmp_path, columns)
        found = self.load(replace(source, options={**source.options, "id": "key", "columns": ["note"]}))
        assert found.ids == ("c", "a", "b")
        assert found.columns == {"note": ("x", "y", "z")}

    def test_limit_takes_the_first_rows(self, tmp_path: Path) -> None:
        self.need("limit")
        source = self.plain(tmp_path)
        found = self.load(replace(source, options={**source.options, "limit": 2}))
        assert found.text == TEXTS[:2]

    def test_no_rows_are_refused(self, tmp_path: Path) -> None:
        source = self.write(tmp_path, {"text": (), "label": ()})
        assert "is empty" in self.refused(lambda: self.load(source))

    def test_a_missing_column_is_named_with_the_nearest(self, tmp_path: Path) -> None:
        self.need("names")
        source = self.plain(tmp_path, text="txet")
        assert "has no column 'txet'; did you mean 'text'?" in self.refused(lambda: self.load(source))

    def test_an_undeclared_label_is_named_by_its_row(self, tmp_path: Path) -> None:
        source = self.write(tmp_path, {"text": TEXTS, "label": ("negative", CANARY, "positive")})
        message = self.refused(lambda: self.load(replace(source, labels=LABELS)))
        assert "row 2" in message
        assert "declared are negative, positive" in message

    def test_a_value_that_the_label_map_lacks_is_named_by_its_row(self, tmp_path: Path) -> None:
        self.need("label_map")
        source = self.write(tmp_path, {"text": TEXTS, "label": ("a", "b", CANARY)})
        options = {**source.options, "label_map": {"a": "negative", "b": "positive"}}
        assert "row 3" in self.refused(lambda: self.load(replace(source, labels=LABELS, options=options)))

    def test_one_class_alone_is_refused(self, tmp_path: Path) -> None:
        source = self.write(tmp_path, {"text": TEXTS, "label": ("positive",) * 3})
        assert "one class only" in self.refused(lambda: self.load(replace(source, labels=LABELS)))

    def test_repeated_ids_are_refused_by_row(self, tmp_path: Path) -> None:
        self.need("id")
        source = self.write(tmp_path, {"text": TEXTS, "label": NAMES, "key": ("a", CANARY, CANARY)})
        message = self.refused(lambda: self.load(replace(source, options={**source.options, "id": "key"})))
        assert "row 3" in message
        assert "row 2" in message

    @pytest.mark.parametrize("column", ["text", "label"])
    def test_a_null_cell_is_refused_by_row(self, tmp_path: Path, column: str) -> None:
        self.need("nulls")
        columns: dict[str, Sequence[Any]] = {"text": TEXTS, "label": NAMES}
        columns[column] = (columns[column][0], None, columns[column][2])
        source = self.write(tmp_path, columns)
        message = self.refused(lambda: self.load(replace(source, labels=LABELS)))
        assert "row 2" in message
        assert f"column '{column}' is null" in message

    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("no_such_option", 3, "unknown option 'no_such_option'"),
            ("limit", 0, "option 'limit' must be a whole number > 0, got 0"),
            ("limit", True, "option 'limit' must be a whole number > 0, got True"),
            ("id", 3, "option 'id' must be text, got int"),
            ("columns", "note", "option 'columns' must be a list of column names, got str"),
            ("label_map", ["a"], "option 'label_map' must map values"),
            ("label_map", {"a": "neutral"}, "must lead to declared labels (negative, positive), got 'neutral'"),
        ],
    )
    def test_a_bad_option_is_refused(self, tmp_path: Path, option: str, value: Any, words: str) -> None:
        if option in COMMON:
            self.need(option)
        source = self.plain(tmp_path)
        changed = replace(source, options={**source.options, option: value})
        assert words in self.refused(lambda: self.load(changed))

    @pytest.mark.parametrize("labels", [("positive",), ("positive", "positive")])
    def test_labels_must_be_two_different_names(self, tmp_path: Path, labels: tuple[str, ...]) -> None:
        source = self.plain(tmp_path, labels=labels)
        assert "at least two different names" in self.refused(lambda: self.load(source))

    def test_labels_without_a_label_column_are_refused(self, tmp_path: Path) -> None:
        assert "needs `label`" in self.refused(lambda: self.load(self.plain(tmp_path, label=None)))

    def test_a_path_that_names_nothing_is_refused_without_showing_it(self, tmp_path: Path) -> None:
        source = self.plain(tmp_path)
        if source.path is None:
            pytest.skip("the source reads no path")
        gone = replace(source, path=str(tmp_path / CANARY / "gone"))
        assert "`path`" in self.refused(lambda: self.load(gone))

    def test_a_broken_file_is_refused(self, tmp_path: Path) -> None:
        cases = self.broken(tmp_path)
        if not cases:
            pytest.skip("the suite names no faults of the format")
        for what, (source, words) in cases.items():
            assert words in self.refused(lambda source=source: self.load(source)), what  # type: ignore[misc]


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is not None and current not in found:
            found.append(current)
            waiting += [current.__cause__, current.__context__]
    return found
