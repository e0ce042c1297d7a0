"""Weights in memory: loaded once a process for each folder, precision and device, shared between roles."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from privkt.contracts import BackendError
from privkt.synthesis.quiet import quiet_transformers
from privkt_transformers.devices import memory_advice

_FALLBACK_CONTEXT = 2048
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
HEAD_FILE = "classifier_head.safetensors"
_lock = threading.RLock()
_Key = tuple[str, torch.dtype, str, bool]
_in_memory: dict[_Key, Loaded] = {}
_users: dict[_Key, weakref.WeakSet[Any]] = {}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with its tokenizer. The weights are shared: whoever changes them works on a `clone`.

    `context`: how many tokens one sequence may have. `weights_id`: equal for equal unchanged weight files, None for
    weights that an adapter changes. `prefix`: a soft prompt's rows, [k, d], put before every sequence.
    """

    network: nn.Module
    tokenizer: Any
    folder: Path
    device: torch.device
    dtype: torch.dtype
    generative: bool
    context: int
    weights_id: str | None = None
    prefix: torch.Tensor | None = None

    @property
    def config(self) -> Any:
        return self.network.config

    @property
    def hidden_size(self) -> int:
        """Length of one hidden state."""
        return int(self.config.get_text_config().hidden_size)

    @property
    def pad(self) -> int:
        """The id that fills; it is always masked."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else 0

    @property
    def start(self) -> int:
        """The id that begins an otherwise empty sequence."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return self.pad

    @property
    def ends(self) -> frozenset[int]:
        """The ids after which a text is over."""
        found: set[int] = set()
        generation = getattr(self.network, "generation_config", None)
        for value in (getattr(generation, "eos_token_id", None), self.tokenizer.eos_token_id):
            if value is not None:
                found.update(value if isinstance(value, list) else [value])
        return frozenset(found)


def load(folder: Path, *, dtype: torch.dtype, device: torch.device, generative: bool, user: object) -> Loaded:
    """The model in `folder`, from memory if it is there. `user` keeps it there until `forget`.

    Raises: BackendError, when the folder cannot be loaded.
    """
    key = (weights_id(folder), dtype, str(device), generative)
    with _lock:
        if key not in _in_memory:
            _in_memory[key] = replace(_read(folder, dtype, device, generative), weights_id=key[0])
        _users.setdefault(key, weakref.WeakSet()).add(user)
        return replace(_in_memory[key], folder=folder)


def weights_id(folder: Path) -> str:
    """Which weight files a folder has: the same for a folder that links another's files.

    A classifier over a frozen model links its weights, and so costs no memory beside it.
    """
    files = sorted(file for pattern in WEIGHT_FILES for file in folder.glob(pattern))
    stats = [(file.name, file.stat()) for file in files if file.name != HEAD_FILE]
    return "|".join(f"{name}:{s.st_dev}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}" for name, s in stats)


def forget(user: object) -> None:
    """Frees what only `user` still wanted."""
    with _lock:
        for key, users in list(_users.items()):
            users.discard(user)
            if not users:
                _users.pop(key)
                _in_memory.pop(key, None)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def clone(network: nn.Module, own: Callable[[str], bool] = lambda name: False) -> nn.Module:
    """The same network as another object: parameters for which `own(name)` holds are copied, all others shared.

    Guarantee: inserting modules into the clone, or training what it owns, leaves the original as it was.
    """
    shared = {
        id(tensor): tensor for name, tensor in (*network.named_parameters(), *network.named_buffers()) if not own(name)
    }
    return copy.deepcopy(network, shared)


def _read(folder: Path, dtype: torch.dtype, device: torch.device, generative: bool) -> Loaded:
    kind = AutoModelForCausalLM if generative else AutoModel
    try:
        with (
            quiet_transformers(),
            memory_advice("loading a model", "choose a smaller model or `dtype: bfloat16`"),
        ):
            network = kind.from_pretrained(folder, dtype=dtype, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BackendError(
            f"model {folder.name!r}: its folder must load with transformers, and it raised {type(error).__name__}: "
            f"{str(error).splitlines()[0]}; fetch the model again, or check that its tokenizer lies beside it"
        ) from None
    network.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return Loaded(network, tokenizer, folder, device, dtype, generative, _context_of(network.config))


def _context_of(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions"):
        if (length := getattr(config.get_text_config(), name, None)) is not None:
            return int(length)
    return _FALLBACK_CONTEXT
