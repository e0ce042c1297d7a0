import pytest

from privkt.evaluation.planted import planted_found
from privkt.evaluation.sample_records import LABELS, sample_records


def test_same_seed_same_records_other_seed_other_records():
    assert sample_records(200, seed=1) == sample_records(200, seed=1)
    assert sample_records(200, seed=1).text != sample_records(200, seed=2).text


def test_every_canary_occurs_in_exactly_one_record():
    records = sample_records(500)
    assert 20 <= len(records.canaries) <= 80
    for canary in records.canaries:
        assert sum(canary in text for text in records.text) == 1


def test_labels_are_declared_and_nearly_balanced():
    records = sample_records(400)
    counts = {label: records.label.count(label) for label in LABELS}
    assert set(records.label) == set(LABELS)
    assert min(counts.values()) > 80


def test_size_is_checked():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        sample_records(0)


def test_planted_found_sees_through_case_and_punctuation():
    assert planted_found(["call ORLA  quaverly brandoch!"], ["Orla Quaverly-Brandoch"]) == ["Orla Quaverly-Brandoch"]
    assert planted_found(["file 4471 093811 closed"], ["4471-093811", "4471-0938"]) == ["4471-093811"]
    assert planted_found([], ["x"]) == []
