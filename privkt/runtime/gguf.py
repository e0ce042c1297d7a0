"""GGUF files as plain Hugging Face folders that can be trained and saved."""

from __future__ import annotations

import copy
import importlib.util
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from privkt.privacy import RefusedInput


def convert_gguf(file: Path, folder: Path) -> None:
    """Writes the model in `file` to `folder` as bfloat16 safetensors with its tokenizer.

    What transformers loads from GGUF is dense already, but it keeps a quantizer that forbids training and saving; so
    the weights move once into a fresh network of the same configuration.
    Raises: RefusedInput, when the `gguf` package is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise RefusedInput(
            f"{file.name}: reading a GGUF file needs the package `gguf`, which is not installed; "
            "`pip install 'privkt[quickstart]'`"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        config = copy.deepcopy(read.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.dtype = torch.bfloat16
        config._name_or_path = ""
        weights = {name: tensor.to(torch.bfloat16) for name, tensor in read.state_dict().items()}
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
        for name in tied:
            weights.pop(name, None)
        network: Any = type(read)
        fresh, report = network.from_pretrained(
            None, config=config, state_dict=weights, dtype=torch.bfloat16, output_loading_info=True
        )
        strange = set(report["unexpected_keys"]) | (set(report["missing_keys"]) - tied)
        if strange or report["mismatched_keys"]:
            raise RefusedInput(
                f"{file.name}: its weights must be those of a {config.model_type} model, and "
                f"{len(strange) + len(report['mismatched_keys'])} tensors differ; "
                "install a newer transformers, or give a folder in Hugging Face format"
            )
        fresh.generation_config = read.generation_config
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keeps transformers from drawing its own bars over ours; the GGUF reader's can only be sent away."""
    from transformers.utils import logging as transformers_logging

    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
