"""Data that a method calls public: declared so, and not a client's own by any other name."""

from pathlib import Path

import pytest

from privkt.config import DataConfig
from privkt.privacy import RefusedInput
from privkt.runtime.provenance import is_copy, need_public, overlap


def hub(dataset="org/mails", **more):
    return DataConfig(source="hub", dataset=dataset, **more)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (hub(), hub(), True),
        (hub(), hub(split="train"), True),
        (hub(), hub("Org/Mails"), True),
        (hub(split="train"), hub(split="test"), False),
        (hub(split="train[:50%]"), hub(split="train[50%:]"), True),
        (hub(split="train"), hub(split="test+train[:10]"), True),
        (hub(split="all"), hub(split="test"), True),
        (hub(config="en"), hub(revision="main"), True),
        (hub("org/others"), hub(), False),
        (DataConfig(path="a.jsonl"), DataConfig(path="./b/../a.jsonl"), True),
        (DataConfig(path="a.jsonl"), DataConfig(path="b.jsonl"), False),
        (DataConfig(path="a.jsonl", split="test"), DataConfig(path="a.jsonl"), True),
        (DataConfig(path="a.jsonl"), DataConfig(path="a.jsonl", source="csv"), True),
        (DataConfig(path="org/mails"), hub(), False),
    ],
)
def test_blocks_overlap_where_they_may_read_the_same_rows(one, other, same):
    assert overlap(one, other) is overlap(other, one) is same


def test_splits_tell_saved_folders_apart_only_where_there_are_splits(tmp_path):
    one, other = (hub(None, path=str(tmp_path), split=split) for split in ("train", "test"))
    assert overlap(one, other)
    (tmp_path / "dataset_dict.json").write_text("{}")
    assert not overlap(one, other)


def test_links_lead_to_the_file_and_a_copy_is_told_and_never_refused(tmp_path):
    """Refusing a copy would be a membership oracle: nothing that stands in a private file decides."""
    names = ("mine", "copy", "other", "linked", "hard", "missing")
    mine, copy, other, linked, hard, missing = (DataConfig(path=str(tmp_path / name)) for name in names)
    for block, text in ((mine, "one\n"), (copy, "one\n"), (other, "two\n")):
        Path(block.path).write_text(text)
    Path(linked.path).symlink_to(mine.path)
    Path(hard.path).hardlink_to(mine.path)
    assert [is_copy(one, mine) for one in (copy, other, missing, hub())] == [True, False, False, False]
    for one, same in ((copy, False), (other, False), (missing, False), (linked, True), (hard, True)):
        assert overlap(mine, one) is overlap(one, mine) is same
        public = [one.model_copy(update={"public": True})]
        if not same:
            need_public("post", public, [("client 'a'", mine)])
            continue
        with pytest.raises(RefusedInput, match="names the data of client 'a'"):
            need_public("post", public, [("client 'a'", mine)])


def test_public_data_are_declared_and_nobodys_own():
    mine = DataConfig(path="mine.jsonl")
    need_public("post", [DataConfig(path="news.jsonl", public=True)], [("client 'a'", mine)])
    with pytest.raises(RefusedInput, match=r"post: the data of 'news.jsonl' .* `public: true`"):
        need_public("post", [DataConfig(path="news.jsonl")], [("client 'a'", mine)])
    with pytest.raises(RefusedInput, match=r"post: the data of hub 'org/mails' .* `public: true`"):
        need_public("post", [hub()], [("client 'a'", mine)])
    with pytest.raises(RefusedInput, match="names the data of client 'a'"):
        need_public("post", [DataConfig(path="mine.jsonl", public=True)], [("client 'a'", mine)])
    need_public(
        "post", [DataConfig(path="mine.jsonl", public=True)], [("a", DataConfig(path="mine.jsonl", public=True))]
    )
