"""Exact small cases of the rules that all sources share, beyond those of DatasetSuite."""

import json

import pytest

from privkt.contracts import DataSource
from privkt.plugins import get_manager
from privkt.privacy import RefusedInput


def load(tmp_path, rows, **fields):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    source = DataSource(**{"source": "json", "text": "text", "label": "label", "path": str(path), **fields})
    return get_manager().create("dataset", "json", source).load()


def rows_of(*labels):
    return [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]


def test_a_declared_label_that_is_a_number_is_itself_and_no_position(tmp_path):
    assert load(tmp_path, rows_of(1, 2, 1), labels=("1", "2")).label == ("1", "2", "1")
    with pytest.raises(RefusedInput, match=r"row 1 .*not declared; declared are 1, 2"):
        load(tmp_path, rows_of(0, 1), labels=("1", "2"))


def test_text_that_looks_like_a_number_is_no_position_in_json(tmp_path):
    with pytest.raises(RefusedInput, match=r"row 1 .*not declared"):
        load(tmp_path, rows_of("0", "1"), labels=("no", "yes"))


def test_a_position_outside_the_declared_labels_is_refused(tmp_path):
    for stray in (2, -1):
        with pytest.raises(RefusedInput, match=r"row 2 \(line 2\)"):
            load(tmp_path, rows_of(0, stray), labels=("no", "yes"))


def test_undeclared_labels_are_taken_as_found(tmp_path):
    assert load(tmp_path, rows_of("b", 3)).label == ("b", "3")


def test_blank_lines_are_no_rows_and_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"text": "a", "label": "x"}\r\n\n{"text": "b", "label": "y"}\n')
    source = DataSource("json", "text", "label", path=str(path))
    assert get_manager().create("dataset", "json", source).load().text == ("a", "b")


def test_limit_does_not_check_what_it_leaves_out(tmp_path):
    assert len(load(tmp_path, [*rows_of("a", "b"), {"text": None}], options={"limit": 2})) == 2


def test_a_folder_is_no_file(tmp_path):
    source = DataSource("json", "text", "label", path=str(tmp_path))
    with pytest.raises(RefusedInput, match="`path` is a folder"):
        get_manager().create("dataset", "json", source).load()


def test_csv_cells_may_be_long_and_span_lines(tmp_path):
    import csv

    path = tmp_path / "rows.csv"
    long = "a" * 200_000
    path.write_text(f'text;label\n"{long}";x\n"two\nlines";y\n', encoding="utf-8")
    source = DataSource("csv", "text", "label", path=str(path), options={"delimiter": ";"})
    before = csv.field_size_limit()
    assert get_manager().create("dataset", "csv", source).load().text == (long, "two\nlines")
    assert csv.field_size_limit() == before


def test_csv_rows_are_named_by_the_line_they_start_on(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"a\nb",x\n\n"c\nd",z\n', encoding="utf-8")
    source = DataSource("csv", "text", "label", labels=("x", "y"), path=str(path))
    with pytest.raises(RefusedInput, match=r"row 2 \(line 5\)"):
        get_manager().create("dataset", "csv", source).load()


def test_hub_label_features_give_their_names(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    source = DataSource("hub", "text", "label", labels=("yes", "no"), path=str(tmp_path / "saved"))
    assert get_manager().create("dataset", "hub", source).load().label == ("yes", "no")


def test_an_unknown_option_gets_the_nearest(tmp_path):
    with pytest.raises(RefusedInput, match=r"^data \(json\): unknown option 'limt'; did you mean 'limit'\?$"):
        load(tmp_path, rows_of("a", "b"), options={"limt": 2})


def test_a_list_in_a_further_column_is_a_line_of_json_and_nowhere_else(tmp_path):
    rows = [{"text": "t", "label": str(i % 2), "choices": ["a", 'b "c"', 3]} for i in range(2)]
    found = load(tmp_path, rows, options={"columns": ["choices"]})
    assert found.columns["choices"] == ('["a", "b \\"c\\"", "3"]',) * 2
    with pytest.raises(RefusedInput, match=r"column 'choices' must hold text, got list"):
        load(tmp_path, rows, text="choices")
    with pytest.raises(RefusedInput, match=r"row 1 .*must hold text or a whole number, got dict"):
        load(tmp_path, [{**row, "choices": [{}]} for row in rows], options={"columns": ["choices"]})
