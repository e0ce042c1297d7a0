"""An adapter multiplied into a copy of the weights it was trained on."""

from __future__ import annotations

from dataclasses import replace

from privkt_transformers.loading import Loaded, clone
from privkt_transformers.trainables import Trainable


def merged(trained: Trainable) -> Loaded:
    """The trained model without PEFT's layers, in float32; what is shared with other roles stays as it was."""
    if trained.wrapped is None:
        return trained.loaded
    # Merging is in place: so a copy that shares nothing, and in float32, lest small steps be rounded away.
    copied = clone(trained.wrapped, lambda name: True).float()
    return replace(trained.loaded, network=copied.merge_and_unload())  # type: ignore[operator]
