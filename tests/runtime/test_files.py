"""Durable writes: the order of system calls, crashes between any two of them, cut lines."""

import json
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.privacy import RefusedInput
from privkt.runtime.errors import Damaged
from privkt.runtime.files import (
    append_line,
    copy_folder,
    json_lines,
    make_folder,
    read_json,
    safe_name,
    write_file,
    write_json,
)


def recorded(monkeypatch):
    """The durable calls in their order, each by what it acts on."""
    calls = []

    def noting(name, describe):
        real = getattr(os, name)

        def act(*args, **kwargs):
            calls.append((name, describe(*args)))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, act)

    noting("write", lambda handle, data: len(data))
    noting("fsync", lambda handle: "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
    noting("replace", lambda source, target: os.path.basename(target))
    return calls


def test_a_file_is_synced_before_its_name_and_its_folder_after(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    write_file(tmp_path / "x", b"new")
    assert calls == [("write", 3), ("fsync", "file"), ("replace", "x"), ("fsync", "folder")]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_lines_are_synced(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    append_line(tmp_path / "x", "line")
    assert calls == [("write", 5), ("fsync", "file")]


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_failure_at_any_call_keeps_the_old_file_and_no_rest(tmp_path, monkeypatch, name):
    write_file(tmp_path / "x", b"old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OSError, match="No space"):
            write_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@settings(max_examples=40)
@given(st.binary(max_size=200), st.integers(1, 7))
def test_short_writes_are_continued(tmp_path_factory, data, step):
    real = os.write
    path = tmp_path_factory.mktemp("w") / "x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda handle, view: real(handle, bytes(view)[:step]))
        write_file(path, data)
    assert path.read_bytes() == data


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), max_size=4), st.data())
def test_a_cut_line_costs_only_itself(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("l") / "lines"
    for value in values:
        append_line(path, json.dumps(value))
    whole = path.read_bytes() if path.exists() else b""
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    append_line(path, '{"last": 1}')
    found = list(json_lines(path))
    kept = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]]
    assert found[: len(kept)] == kept
    assert found[-1] == {"last": 1}
    assert len(found) <= len(kept) + 2  # a cut can fall right before a line's end


@pytest.mark.parametrize("name", ["a", "a.b-c_9", "A" * 150])
def test_plain_names_pass(name):
    assert safe_name("client", name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a\\b", "a\n", "ä", "A" * 151])
def test_other_names_are_refused_without_being_repeated(name):
    with pytest.raises(RefusedInput, match=rf"client: must be 1 to 150 .* got {len(name)} characters"):
        safe_name("client", name)


def test_damage_is_named_by_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json") == {"a": 1}
    (tmp_path / "x.json").write_text('{"canary')
    with pytest.raises(Damaged, match=r"^x\.json: is damaged \(not JSON\)"):
        read_json(tmp_path / "x.json")


def test_folders_and_files_are_private(tmp_path):
    make_folder(tmp_path / "a" / "b")
    write_file(tmp_path / "a" / "b" / "x", b"")
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "x"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_links_to_folders_are_not_followed(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path)
    with pytest.raises(RefusedInput, match="must hold plain files, got a link"):
        copy_folder(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()
