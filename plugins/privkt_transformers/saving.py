"""Models written in Hugging Face format; weights that did not change are linked, not copied."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from privkt.synthesis.quiet import quiet_transformers
from privkt_transformers.loading import HEAD_FILE, WEIGHT_FILES, Loaded, clone

_COMPANIONS = ("*.json", "*.txt", "*.jinja", "*.model")


def save_network(loaded: Loaded, folder: Path, dtype: torch.dtype) -> None:
    """Weights, config and tokenizer of a trained copy, the weights in `dtype`."""
    copy_companions(loaded.folder, folder)
    for index in folder.glob("*.index.json"):
        index.unlink()
    # A cast is in place, and some of these weights are shared with other roles: so it is done to a copy.
    with quiet_transformers():
        clone(loaded.network, lambda name: True).to(dtype).save_pretrained(folder)  # type: ignore[operator]
        loaded.tokenizer.save_pretrained(folder)


def link_weights(source: Path, folder: Path) -> None:
    """The unchanged weights of `source` in `folder`: hard links where the file system has them, else copies."""
    for pattern in WEIGHT_FILES:
        for file in source.glob(pattern):
            if file.name == HEAD_FILE:
                continue
            real = file.resolve()
            try:
                os.link(real, folder / file.name)
            except OSError:
                shutil.copyfile(real, folder / file.name)


def copy_companions(source: Path, folder: Path) -> None:
    """Config, tokenizer and pooling files; never weights."""
    for pattern in _COMPANIONS:
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    for pooling in source.glob("*_Pooling/config.json"):
        (folder / pooling.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(pooling, folder / pooling.parent.name / pooling.name)
