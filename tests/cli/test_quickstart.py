"""What quickstart writes before its run; the run itself needs real models."""

import json
import stat

from privkt.cli import running
from privkt.runtime import models


def test_records_and_their_folder_are_for_their_owner_alone(cli, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(models, "find_model", lambda *names, **options: tmp_path / "model")
    monkeypatch.setattr(running, "execute", lambda config, folder: None)
    said = cli("quickstart", "--output", tmp_path / "out", "--size", "200", "--yes")
    assert said.code == 0, said.err
    records = tmp_path / "out" / "records"
    assert stat.S_IMODE(records.stat().st_mode) == 0o700
    files = sorted(records.iterdir())
    assert [file.name for file in files] == ["test.jsonl", "train.jsonl"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert len([json.loads(line) for line in files[1].read_text(encoding="utf-8").splitlines()]) == 200
