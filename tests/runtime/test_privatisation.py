"""A file of texts into a file of noisy ones: killed, refused by a hook, on ledgers of every kind, never drawn twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "synthesis"))  # the toy mechanism lives beside its own tests
from toy_tokens import Toy, vocabulary

from privkt.plugins import PluginManager, ReleaseVetoed, hookimpl
from privkt.privacy import Ledger, LedgerMismatch, RefusedInput, SameDataElsewhere
from privkt.runtime.errors import ReleaseRefused
from privkt.runtime.privatisation import Account, PrivateTexts
from privkt.synthesis.privatiser import TextPrivatiser

WORKER = Path(__file__).parent / "privatising_worker.py"
VOCABULARY = vocabulary()
COUNT = 40


@pytest.fixture
def notes(tmp_path):
    """Forty texts, of which many are equal."""
    file = tmp_path / "notes.jsonl"
    rows = [{"text": ("the visit was cold", "a kind visit", "")[i % 3]} for i in range(COUNT)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def privatiser(epsilon=2.0, k_max=5):
    return TextPrivatiser(VOCABULARY, Toy(VOCABULARY.vectors, epsilon), k_max=k_max)


def kinds(name="notes"):
    return [entry.kind for entry in Ledger.open(name).entries()]


def test_kill_at_random_moments_pays_and_draws_once(notes, tmp_path):
    output, dice = tmp_path / "noisy.jsonl", random.Random(30)
    journal = tmp_path / "noisy.jsonl.private" / "texts.jsonl"
    seen, kills = b"", 0
    for wanted in (0, 15, COUNT + 1):
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(notes), str(output)], stderr=subprocess.PIPE, env=dict(os.environ)
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (journal.read_bytes().count(b"\n") if journal.exists() else 0) >= max(wanted, 1):
                break
            if wanted == 0 and (tmp_path / "noisy.jsonl.private" / "store.json").exists():
                break
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.02) if wanted <= COUNT else 0)
        if wanted <= COUNT:
            assert not output.exists()
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()
        kills += process.returncode != 0
        written = journal.read_bytes() if journal.exists() else b""
        assert written.startswith(seen)  # whole lines stay as they were first written
        seen = written[: written.rfind(b"\n") + 1]
    assert kills == 2
    assert kinds() == ["opened", "charge", "stored", "sent"]
    drawn = [json.loads(line) for line in seen.splitlines()]
    assert [line["id"] for line in drawn] == [str(i + 1) for i in range(COUNT)]
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == [line["text"] for line in drawn]


def test_a_line_cut_short_is_drawn_anew_and_whole_lines_are_not(notes, tmp_path):
    output, store = tmp_path / "noisy.jsonl", tmp_path / "noisy.jsonl.private"

    class Dying(Toy):
        def sample_ids(self, ids):
            if len(self.calls) == 12:
                raise KeyboardInterrupt
            return super().sample_ids(ids)

    dying = TextPrivatiser(VOCABULARY, Dying(VOCABULARY.vectors, 2.0), k_max=5)
    with pytest.raises(KeyboardInterrupt):
        PrivateTexts(notes, Account("notes")).privatise(dying, output, batch_size=1)
    lines = (store / "texts.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 13
    # As a process leaves it that is killed while it writes line 11.
    cut = b"\n".join(lines[:10]) + b"\n" + lines[10][:9]
    (store / "texts.jsonl").write_bytes(cut)
    made = privatiser()
    PrivateTexts(notes, Account("notes")).privatise(made, output)
    assert sum(map(len, made.mechanisms[0].calls)) == 5 * (COUNT - 10)
    again = (store / "texts.jsonl").read_bytes().split(b"\n")
    assert again[:10] == lines[:10]
    assert len(again) == COUNT + 1
    # Once it was finished, what was drawn is on the ledger, and nothing is drawn that could be another text.
    (store / "texts.jsonl").write_bytes(cut)
    output.unlink()
    late = privatiser()
    with pytest.raises(RefusedInput, match="one charge pays for one set of draws"):
        PrivateTexts(notes, Account("notes")).privatise(late, output)
    assert late.mechanisms[0].calls == []
    assert not output.exists()


@pytest.mark.parametrize("emptied", [False, True])
def test_a_copied_store_pays_for_no_second_file(notes, tmp_path, emptied):
    """The file's name is no part of what a charge paid for, nor is where it lies."""
    output, store = tmp_path / "noisy.jsonl", tmp_path / "noisy.jsonl.private"

    class Dying(Toy):
        def sample_ids(self, ids):
            if len(self.calls) == 10:
                raise KeyboardInterrupt
            return super().sample_ids(ids)

    dying = TextPrivatiser(VOCABULARY, Dying(VOCABULARY.vectors, 2.0), k_max=5)
    with pytest.raises(KeyboardInterrupt):
        PrivateTexts(notes, Account("notes")).privatise(dying, output, batch_size=1)
    (tmp_path / "else").mkdir()
    for copy in (tmp_path / "other.jsonl", tmp_path / "else" / "noisy.jsonl"):
        copied = shutil.copytree(store, copy.with_name(f"{copy.name}.private"))
        if emptied:
            (copied / "texts.jsonl").write_bytes(b"")
    PrivateTexts(notes, Account("notes")).privatise(privatiser(), output)
    for copy in (tmp_path / "other.jsonl", tmp_path / "else" / "noisy.jsonl"):
        with pytest.raises(RefusedInput, match="one charge pays for one set of draws"):
            PrivateTexts(notes, Account("notes")).privatise(privatiser(), copy)
        assert not copy.exists()
    assert kinds() == ["opened", "charge", "stored", "sent"]


def test_the_same_draws_are_written_out_as_often_as_asked_and_hooks_see_new_bytes(notes, tmp_path):
    output, asked = tmp_path / "noisy.jsonl", []

    class Policy:
        @hookimpl
        def privkt_before_release(self, summary):
            asked.append(summary.sha256)

    manager = PluginManager()
    manager.register(Policy(), distribution="acme", entry="policy")

    def write(to, **more):
        PrivateTexts(notes, Account("notes"), manager=manager).privatise(privatiser(), to, **more)
        return [json.loads(line) for line in to.read_text().splitlines()]

    first, data = write(output), output.read_bytes()
    assert write(output) == first
    assert output.read_bytes() == data
    assert len(asked) == 1
    with_ids = write(output, keep_ids=True)
    assert [row["text"] for row in with_ids] == [row["text"] for row in first]
    assert len(set(asked)) == len(asked) == 2
    shutil.copytree(tmp_path / "noisy.jsonl.private", tmp_path / "renamed.jsonl.private")
    assert write(tmp_path / "renamed.jsonl") == first
    assert kinds() == ["opened", "charge", "stored", "sent"]


def test_a_disk_that_cannot_sync_gives_nothing_out(notes, tmp_path, monkeypatch):
    output = tmp_path / "noisy.jsonl"
    texts = PrivateTexts(notes, Account("notes"))
    real, syncs = os.fsync, []

    def failing(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        syncs.append(name)
        if name.endswith("texts.jsonl"):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        texts.privatise(privatiser(), output)
    assert syncs[-1].endswith("texts.jsonl")
    assert not output.exists()
    monkeypatch.setattr(os, "fsync", real)
    made = privatiser()
    PrivateTexts(notes, Account("notes")).privatise(made, output)
    assert made.mechanisms[0].calls == []  # the lines were whole, and stay
    assert kinds() == ["opened", "charge", "stored", "sent"]


def test_two_processes_do_not_draw_at_once(notes, tmp_path):
    class Meddler(Toy):
        def sample_ids(self, ids):
            with pytest.raises(RefusedInput, match="another process draws them"):
                PrivateTexts(notes, Account("notes")).privatise(privatiser(), tmp_path / "noisy.jsonl")
            return super().sample_ids(ids)

    made = TextPrivatiser(VOCABULARY, Meddler(VOCABULARY.vectors, 2.0), k_max=5)
    PrivateTexts(notes, Account("notes")).privatise(made, tmp_path / "noisy.jsonl")
    assert kinds().count("charge") == 1


def test_a_hook_can_keep_the_file_back_and_the_spend_stays(notes, tmp_path):
    class Policy:
        @hookimpl
        def privkt_before_release(self, summary):
            assert summary.rows == COUNT
            raise ReleaseVetoed("not on a Sunday")

    manager = PluginManager()
    manager.register(Policy(), distribution="acme", entry="policy")
    with pytest.raises(ReleaseRefused, match="not on a Sunday; the spend stays"):
        PrivateTexts(notes, Account("notes"), manager=manager).privatise(privatiser(), tmp_path / "noisy.jsonl")
    assert not (tmp_path / "noisy.jsonl").exists()
    assert kinds() == ["opened", "charge", "stored"]
    assert len(Ledger.open("notes").charges()) == 1
    PrivateTexts(notes, Account("notes")).privatise(privatiser(), tmp_path / "noisy.jsonl")
    assert kinds() == ["opened", "charge", "stored", "sent"]


@pytest.mark.parametrize(
    ("neighbouring", "unit"), [("zero-out", "record"), ("local", "document"), ("replace-one", "record")]
)
def test_it_adds_up_with_what_the_data_set_spent_before(notes, tmp_path, neighbouring, unit):
    ledger = Ledger.open_or_create(
        "notes", cap_epsilon=100, cap_delta=1e-2, unit=unit, neighbouring=neighbouring, size=COUNT
    )
    done = PrivateTexts(notes, Account("notes")).privatise(privatiser(), tmp_path / "noisy.jsonl")
    guarantee = done.release.guarantee
    assert (guarantee.unit, guarantee.neighbouring) == (unit, neighbouring)
    assert ledger.spent().epsilon == guarantee.epsilon
    PrivateTexts(notes, Account("notes")).privatise(privatiser(), tmp_path / "more.jsonl")
    assert ledger.spent().epsilon == pytest.approx(2 * guarantee.epsilon)


def test_ledgers_that_count_something_else_are_refused(notes, tmp_path):
    Ledger.open_or_create("people", cap_epsilon=100, cap_delta=1e-2, unit="user", size=COUNT)
    with pytest.raises(LedgerMismatch, match="unit stays"):
        PrivateTexts(notes, Account("people")).privatise(privatiser(), tmp_path / "noisy.jsonl")
    Ledger.open_or_create("open", cap_epsilon=100, cap_delta=1e-2, neighbouring="add-remove", size=COUNT)
    with pytest.raises(RefusedInput, match="does not hide how many"):
        PrivateTexts(notes, Account("open")).privatise(privatiser(), tmp_path / "noisy.jsonl")
    PrivateTexts(notes, Account("notes")).privatise(privatiser(), tmp_path / "noisy.jsonl")
    with pytest.raises(SameDataElsewhere, match="already accounted for as notes"):
        PrivateTexts(notes, Account("anew"))
    PrivateTexts(notes, Account("anew", new_name_confirmed=True)).privatise(privatiser(), tmp_path / "anew.jsonl")


def test_changed_rows_need_their_word_and_another_file(notes, tmp_path):
    PrivateTexts(notes, Account("notes")).privatise(privatiser(), tmp_path / "noisy.jsonl")
    notes.write_text(notes.read_text().replace("cold", "warm"))
    with pytest.raises(RefusedInput, match="fingerprint differs"):
        PrivateTexts(notes, Account("notes")).privatise(privatiser(), tmp_path / "new.jsonl")
    changed = Account("notes", data_changed=True)
    with pytest.raises(RefusedInput, match="give another --output and say --data-changed"):
        PrivateTexts(notes, changed).privatise(privatiser(), tmp_path / "noisy.jsonl")
    ledger = Ledger.open("notes")
    ledger.raise_cap(100, ledger.cap.delta * 2, "a second version")
    PrivateTexts(notes, changed).privatise(privatiser(), tmp_path / "new.jsonl")
    assert kinds().count("charge") == 2


def test_csv_and_tabs_are_read_as_elsewhere(tmp_path):
    (tmp_path / "notes.tsv").write_text("id\ttext\n7\tthe visit\n8\ta, b\n")
    (tmp_path / "notes.csv").write_text('id,text\n7,the visit\n8,"a, b"\n')
    one, two = (PrivateTexts(tmp_path / f"notes.{end}", Account("x"), id="id").rows for end in ("tsv", "csv"))
    assert one == two
    assert one.ids == ("7", "8")
