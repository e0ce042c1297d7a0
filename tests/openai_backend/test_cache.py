"""Answers on disk: found again after any cut, private to their owner, and without text in their keys."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privkt_openai.cache import FILE_NAME, AnswerCache

from privkt.contracts import BackendError, ChatTurn, Sampling


def opened(folder):
    cache = AnswerCache(folder)
    cache.refresh()
    return cache


def test_what_was_put_is_found_by_the_next_cache(tmp_path):
    value = {"text": "zwölf\n\u2028 lines", "finish": "stop", "tokens": 4}
    AnswerCache(tmp_path / "deep" / "down").put("k", value)
    assert opened(tmp_path / "deep" / "down").get("k") == value
    assert opened(tmp_path / "deep" / "down").get("other") is None


def test_only_the_owner_can_read_it(tmp_path):
    AnswerCache(tmp_path).put("k", {})
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_no_folder_keeps_nothing():
    cache = AnswerCache(None)
    cache.put("k", {"text": "a"})
    assert cache.get("k") is None
    assert not cache.kept


@settings(max_examples=60)
@given(st.integers(0, 400), st.binary(max_size=5).filter(lambda noise: b"\n" not in noise))
def test_a_cut_at_any_byte_costs_at_most_the_last_line(tmp_path_factory, cut, noise):
    folder = tmp_path_factory.mktemp("cut")
    cache = AnswerCache(folder)
    for n in range(4):
        cache.put(f"k{n}", {"text": f"answer {n}"})
    data = (folder / FILE_NAME).read_bytes()
    kept = data[: min(cut, len(data))]
    (folder / FILE_NAME).write_bytes(kept + noise)
    after = opened(folder)
    whole = kept.count(b"\n")
    assert [after.get(f"k{n}") is not None for n in range(4)] == [n < whole for n in range(4)]
    after.put("new", {"text": "b"})
    last = opened(folder)
    assert last.get("new") == {"text": "b"}
    assert all(last.get(f"k{n}") is not None for n in range(whole))


@pytest.mark.parametrize("line", [b"12", b"[]", b'{"key": "k"}', b'{"key": 1, "value": {}}', b"\xff", b"{", b"null"])
def test_damaged_lines_are_counted_and_skipped(tmp_path, line):
    AnswerCache(tmp_path).put("a", {"text": "a"})
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(line + b"\n")
    AnswerCache(tmp_path).put("b", {"text": "b"})
    cache = opened(tmp_path)
    assert cache.damaged == 1
    assert cache.get("a") == {"text": "a"}
    assert cache.get("b") == {"text": "b"}


def test_several_processes_share_it(tmp_path):
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from privkt_openai.cache import AnswerCache
        cache = AnswerCache(Path(sys.argv[1]))
        for n in range(40):
            cache.put(f"{sys.argv[2]}-{n}", {"text": "x" * 3000})
    """)
    runs = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(w)]) for w in range(3)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0, 0]
    cache = opened(tmp_path)
    assert cache.damaged == 0
    assert all(cache.get(f"{w}-{n}") for w in range(3) for n in range(40))


def test_a_full_disk_ends_the_run_resumably(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    cache = AnswerCache(tmp_path)
    cache.put("a", {})
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BackendError, match=r"No space left on device; free space.*resume with"):
        cache.put("b", {})
    monkeypatch.undo()
    assert opened(tmp_path).get("a") == {}


def test_keys_hold_no_text(faulty, backend, tmp_path):
    made = backend(faulty(), cache=tmp_path)
    made.generate(["canary-7351", (ChatTurn("user", "canary-7351"),)], Sampling(stop=("canary-7351",)))
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    for line in (tmp_path / FILE_NAME).read_text().splitlines():
        key = line.split('"')[3]
        assert len(key) == 64
        assert set(key) <= set("0123456789abcdef")
        assert "canary" not in line


def test_an_entry_of_another_shape_is_asked_for_again(faulty, backend, tmp_path):
    server = faulty()
    backend(server, cache=tmp_path).generate(["p"], Sampling())
    text = (tmp_path / FILE_NAME).read_text().replace('"text"', '"words"')
    (tmp_path / FILE_NAME).write_text(text)
    assert backend(server, cache=tmp_path).generate(["p"], Sampling())[0].text == "re[1]: p"
