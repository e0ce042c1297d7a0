"""Where a model lies: a folder, a known small model, or the Hugging Face cache and hub. No torch here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from privkt.contracts import BackendError
from privkt.privacy import RefusedInput
from privkt.runtime.models import KNOWN_MODELS, ModelNotFound, find_model

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CACHED_SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/")
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class ModelPlace:
    """A model as the config names it."""

    reference: str

    @property
    def path(self) -> Path:
        return Path(self.reference).expanduser()

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def is_known(self) -> bool:
        return not self.is_folder and self.reference.lower() in KNOWN_MODELS

    @property
    def name(self) -> str:
        """A public name: the hub id, or a folder's last component; never a path."""
        if not self.is_folder and not self._looks_like_path():
            return self.reference
        cached = _CACHED_SNAPSHOT.search(self.path.as_posix())
        if cached:
            return cached.group(1).replace("--", "/")
        return self.path.absolute().name or "model"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json. Raises RefusedInput when there is none or it is not a JSON object."""
        file = self._config_file()
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RefusedInput(
                f"model {self.reference!r}: the folder must hold a Hugging Face model, and it has no config.json; "
                "give the folder that `save_pretrained` wrote"
            ) from None
        except (OSError, ValueError):
            raise RefusedInput(
                f"model {self.reference!r}: config.json must be a JSON file, and it cannot be read as one; "
                "fetch the model again"
            ) from None
        if not isinstance(config, dict) or "model_type" not in config:
            raise RefusedInput(
                f"model {self.reference!r}: config.json must be an object with a model_type, and this one is not; "
                "give the folder of a transformers model"
            )
        return config

    @property
    def generative(self) -> bool:
        """Whether the model continues text."""
        return any("CausalLM" in a or a.endswith("LMHeadModel") for a in self.config.get("architectures") or ())

    @property
    def context(self) -> int | None:
        """How many tokens one sequence may have, as config.json says."""
        text = self.config.get("text_config")
        for values in (text if isinstance(text, dict) else {}, self.config):
            for name in ("max_position_embeddings", "n_positions"):
                if isinstance(length := values.get(name), int):
                    return length
        return None

    def check(self) -> None:
        """Refuses what cannot be loaded, without loading it."""
        config = self.config
        if config.get("is_encoder_decoder"):
            raise RefusedInput(
                f"model {self.reference!r}: must be a decoder or an encoder, got an encoder-decoder "
                f"({config['model_type']}); choose another model"
            )
        if self.is_folder and not any(any(self.path.glob(pattern)) for pattern in _WEIGHT_FILES):
            raise RefusedInput(
                f"model {self.reference!r}: the folder must hold weights (*.safetensors), and it has none; "
                "fetch the model again"
            )

    def fetch(self) -> Path:
        """The model's folder on this machine; a hub id is downloaded if it must be."""
        if self.is_folder:
            return self.path
        self._refuse_missing_path()
        if self.is_known:
            try:
                return find_model(self.reference.lower())
            except ModelNotFound as error:
                raise RefusedInput(str(error)) from None
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(huggingface_hub.snapshot_download(self.reference, local_files_only=True))
        except LocalEntryNotFoundError:
            self._reach_hub()
        try:
            return Path(huggingface_hub.snapshot_download(self.reference))
        except OSError as error:
            raise BackendError(self._unreachable(type(error).__name__)) from None

    def _config_file(self) -> Path:
        if self.is_folder or self.is_known:
            return self.fetch() / "config.json"
        self._refuse_missing_path()
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(self.reference, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        self._reach_hub()
        try:
            return Path(huggingface_hub.hf_hub_download(self.reference, "config.json"))
        except OSError as error:
            raise RefusedInput(self._unreachable(type(error).__name__)) from None

    def _reach_hub(self) -> None:
        """Refuses at once where the hub cannot be asked; its own downloads would try again for half a minute."""
        import huggingface_hub

        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise RefusedInput(self._unreachable("HF_HUB_OFFLINE is set"))
        try:
            huggingface_hub.HfApi().model_info(self.reference, timeout=10)
        except Exception as error:  # its type depends on the HTTP library that the hub's client was built on
            raise RefusedInput(self._unreachable(type(error).__name__)) from None

    def _looks_like_path(self) -> bool:
        return _HUB_ID.fullmatch(self.reference) is None

    def _refuse_missing_path(self) -> None:
        if self._looks_like_path():
            raise RefusedInput(
                f"model {self.reference!r}: must be an existing folder or a hub id, and there is no such folder; "
                "correct the path"
            )

    def _unreachable(self, why: str) -> str:
        return (
            f"model {self.reference!r}: is no folder here, is not in the Hugging Face cache, and could not be fetched "
            f"({why}); give a folder, go online, or use one of "
            f"{', '.join(sorted(KNOWN_MODELS))}"
        )
