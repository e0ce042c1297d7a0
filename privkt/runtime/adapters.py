"""`Adapter` and `SoftPrompt` as one safetensors file whose single metadata entry is the whitelisted PEFT config.

The container is written and read here, not by a library: the bytes must be the same for equal weights in every
version, and a reader must refuse what it does not know before it allocates.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

from privkt.contracts.messages import Adapter, SoftPrompt
from privkt.runtime.errors import WireError

CONFIG, WEIGHTS, README = "adapter_config.json", "adapter_model.safetensors", "README.md"
_MAX_HEADER = 16 * 2**20
_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,512}")
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,256}")
_KINDS = {
    "LORA": "adapter",
    "IA3": "adapter",
    "VERA": "adapter",
    "LN_TUNING": "adapter",
    "TRAINABLE_TOKENS": "adapter",
    "PROMPT_TUNING": "soft-prompt",
    "P_TUNING": "soft-prompt",
    "PREFIX_TUNING": "soft-prompt",
}

_TARGETS = {"target_modules": "words", "exclude_modules": "words", "modules_to_save": "words"}
_LAYERS = {"layers_to_transform": "ints", "layers_pattern": "words", "fan_in_fan_out": "bool", "bias": "word"}
_PROMPT = {
    "num_virtual_tokens": "int",
    "token_dim": "int",
    "num_transformer_submodules": "int",
    "num_attention_heads": "int",
    "num_layers": "int",
    "modules_to_save": "words",
}
# What may cross, by PEFT type. Everything else must be unset, or is dropped because it never matters to a reader.
_ALLOWED: dict[str, dict[str, str]] = {
    "LORA": {
        **_TARGETS,
        **_LAYERS,
        "r": "int",
        "lora_alpha": "number",
        "lora_dropout": "number",
        "use_rslora": "bool",
        "use_dora": "bool",
        "lora_bias": "bool",
        "rank_pattern": "map",
        "alpha_pattern": "map",
        "init_lora_weights": "init",
        "trainable_token_indices": "tokens",
    },
    "IA3": {**_TARGETS, "feedforward_modules": "words", "fan_in_fan_out": "bool"},
    "VERA": {
        **_TARGETS,
        **_LAYERS,
        "r": "int",
        "vera_dropout": "number",
        "projection_prng_key": "int",
        "save_projection": "bool",
        "d_initial": "number",
    },
    "LN_TUNING": _TARGETS,
    "TRAINABLE_TOKENS": {**_TARGETS, "token_indices": "tokens"},
    "PROMPT_TUNING": _PROMPT,
    "P_TUNING": {
        **_PROMPT,
        "encoder_reparameterization_type": "word",
        "encoder_hidden_size": "int",
        "encoder_num_layers": "int",
        "encoder_dropout": "number",
    },
    "PREFIX_TUNING": {**_PROMPT, "encoder_hidden_size": "int", "prefix_projection": "bool"},
}
_COMMON = {"task_type": "word"}
_DROPPED = frozenset(
    {
        "base_model_name_or_path",  # a path of the sender's machine, as often as not
        "revision",
        "auto_mapping",
        "peft_version",
        "inference_mode",
        "megatron_core",
        "qalora_group_size",
        "prompt_tuning_init",
        "prompt_tuning_init_text",
        "tokenizer_name_or_path",
        "tokenizer_kwargs",
    }
)


def encode_adapter(message: Adapter | SoftPrompt) -> bytes:
    """The bytes of an adapter: weights and whitelisted settings; no path, no README, no metric.

    Guarantee: equal weights and settings give equal bytes, whatever order the files had.
    Raises: WireError, naming a file, setting or tensor that has no place in it.
    """
    kind = "soft-prompt" if isinstance(message, SoftPrompt) else "adapter"
    if strange := sorted(set(message.files) - {CONFIG, WEIGHTS, README}):
        raise WireError(f"{kind}: file {strange[0]!r} may not cross, only {CONFIG} and {WEIGHTS}; drop it")
    for name in (CONFIG, WEIGHTS):
        if name not in message.files:
            raise WireError(f"{kind}: file {name} is missing; save the adapter with PEFT's save_pretrained")
    config = _whitelisted(_json(message.files[CONFIG], CONFIG), kind)
    tensors, _ = _parse(message.files[WEIGHTS], kind)
    note = json.dumps({"message": f"{kind}/1", "config": config}, sort_keys=True, separators=(",", ":"))
    return _serialize(tensors, {"privkt": note})


def decode_adapter(data: bytes) -> Adapter | SoftPrompt:
    """The adapter in `data`, which may come from anybody, as PEFT's config and weights files.

    Raises: WireError, for unknown settings, types, tensors with holes or overlaps, trailing bytes.
    """
    tensors, metadata = _parse(data, "adapter")
    if set(metadata) != {"privkt"}:
        raise WireError("adapter: the metadata must be the one entry `privkt`")
    note = _json(metadata["privkt"].encode(), "metadata")
    if set(note) != {"message", "config"} or not isinstance(note["config"], dict):
        raise WireError("adapter: the metadata must hold exactly `message` and `config`")
    kind = str(note["message"]).removesuffix("/1")
    if kind not in _KINDS.values() or not str(note["message"]).endswith("/1"):
        raise WireError("adapter: message must be adapter/1 or soft-prompt/1; update privkt on one side")
    config = note["config"]
    if _whitelisted(config, kind) != config:
        raise WireError("adapter: the config holds settings that may not cross; the sender must drop them")
    if config["peft_type"] == "PROMPT_TUNING":
        config = {**config, "prompt_tuning_init": "RANDOM"}
    files = {
        CONFIG: json.dumps({**config, "inference_mode": True}, sort_keys=True, indent=2).encode(),
        WEIGHTS: _serialize(tensors, {"format": "pt"}),
    }
    return SoftPrompt(files) if kind == "soft-prompt" else Adapter(files)


def _json(data: bytes, what: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key appears twice")
        return dict(pairs)

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise WireError(f"adapter: {what} must be a JSON object in UTF-8 with distinct keys") from None
    if not isinstance(value, dict):
        raise WireError(f"adapter: {what} must be a JSON object, got {type(value).__name__}")
    return value


def _whitelisted(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    peft_type = config.get("peft_type")
    if not isinstance(peft_type, str) or _KINDS.get(peft_type) != kind:
        wanted = " or ".join(name for name, its in _KINDS.items() if its == kind)
        raise WireError(f"{kind}: peft_type must be {wanted}; other adapters have no encoding yet")
    allowed = {**_COMMON, **_ALLOWED[peft_type]}
    kept: dict[str, Any] = {"peft_type": peft_type}
    for name, value in config.items():
        unset = value is None or value is False or value in ({}, [], "")
        if name == "peft_type" or name in _DROPPED or (unset and name not in allowed):
            continue
        if name not in allowed:
            raise WireError(f"{kind}: setting {name[:64]!r} is set and may not cross; unset it")
        if value is None:
            continue
        if not _CHECKS[allowed[name]](value):
            raise WireError(f"{kind}: setting {name!r} must be of type {allowed[name]}")
        kept[name] = sorted(value) if allowed[name] == "words" and isinstance(value, list) else value
    return kept


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**31


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_tokens(value: Any) -> bool:
    if isinstance(value, dict):
        return len(value) < 64 and all(_is_word(k) and isinstance(v, list) and _is_tokens(v) for k, v in value.items())
    return isinstance(value, list) and len(value) < 2**20 and all(type(i) is int and 0 <= i < 2**31 for i in value)


_CHECKS: dict[str, Any] = {
    "int": lambda v: type(v) is int and 0 <= v < 2**31,
    "number": _is_number,
    "bool": lambda v: type(v) is bool,
    "word": _is_word,
    "words": lambda v: _is_word(v) or (isinstance(v, list) and len(v) < 4096 and all(map(_is_word, v))),
    "ints": lambda v: isinstance(v, list) and all(type(i) is int and 0 <= i < 2**16 for i in v),
    "tokens": _is_tokens,
    "map": lambda v: (
        isinstance(v, dict)
        and len(v) < 4096
        and all(isinstance(k, str) and len(k) <= 256 and _is_number(n) for k, n in v.items())
    ),
    "init": lambda v: type(v) is bool or v == "gaussian",  # others change the base model's weights too
}

_Tensors = dict[str, tuple[str, list[int], bytes]]


def _parse(data: bytes, kind: str) -> tuple[_Tensors, dict[str, str]]:
    """Tensors and metadata of a safetensors file, without holes, overlaps or rest.

    References: safetensors format, README of the safetensors project ("Format").
    """
    if len(data) < 8:
        raise WireError(f"{kind}: the weights end early; ask for them again")
    (length,) = struct.unpack_from("<Q", data)
    if length > min(_MAX_HEADER, len(data) - 8):
        raise WireError(f"{kind}: the header of the weights is longer than allowed or than the file")
    header = _json(bytes(data[8 : 8 + length]), "the header of the weights")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WireError(f"{kind}: the metadata of the weights must be strings")
    if not header:
        raise WireError(f"{kind}: there are no weights; save the adapter after training it")
    body = memoryview(data)[8 + length :]
    tensors: _Tensors = {}
    end = 0
    try:
        by_place = sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"]))
        for name, entry in by_place:
            dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = [*shape, start, stop]
            if set(entry) != {"dtype", "shape", "data_offsets"} or len(shape) > 8:
                raise ValueError
            if any(type(n) is not int or not 0 <= n < 2**48 for n in whole) or start != end:
                raise ValueError
            if not _NAME.fullmatch(name) or stop - start != _DTYPES[dtype] * math.prod(shape):
                raise ValueError
            tensors[name] = (dtype, list(shape), bytes(body[start:stop]))
            end = stop
    except (KeyError, TypeError, ValueError):
        raise WireError(
            f"{kind}: every tensor must have a plain name, a float type ({', '.join(_DTYPES)}), and its own place "
            "in the file without holes; one has not"
        ) from None
    if end != len(body):
        raise WireError(f"{kind}: the weights must end with the last tensor")
    return tensors, metadata


def _serialize(tensors: _Tensors, metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, end = [], 0
    # Wide types first, as the safetensors library does, so that every tensor is aligned for mapping.
    for name, (dtype, shape, raw) in sorted(tensors.items(), key=lambda item: (-_DTYPES[item[1][0]], item[0])):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(raw)]}
        parts.append(raw)
        end += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
