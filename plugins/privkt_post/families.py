"""A model with some of its layers left out: everything else is copied."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from privkt.privacy import RefusedInput
from privkt.synthesis.quiet import quiet_transformers
from privkt_post.config import DistillationConfig
from privkt_post.networks import Net


def chosen_layers(config: DistillationConfig, depth: int) -> tuple[int, ...]:
    """The layers to keep, in order. Raises RefusedInput, for none, repeated or missing ones."""
    if config.layers is not None:
        found = config.layers
    else:
        found = (*range(config.first), *range(depth - config.last, depth))
    if not found or list(found) != sorted(set(found)) or not 0 <= found[0] <= found[-1] < depth:
        raise RefusedInput(
            f"post.distillation: the kept layers must be different ones of 0 to {depth - 1} in order, got "
            f"{', '.join(map(str, found)) or 'none'}; correct `layers`, or `first` and `last`"
        )
    return tuple(found)


def layer_list(network: nn.Module, depth: int) -> str:
    """The name of the list of a model's layers. Raises RefusedInput, if there is none."""
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name
    raise RefusedInput(
        "post.distillation: the model must be made of a list of layers, and this one is not; name a small model of "
        "your own as the role `student`"
    )


def shrunk(net: Net, kept: Sequence[int], *, untie: bool) -> Any:
    """A new float32 model with the kept layers, and the embeddings and the head of `net`; nothing is shared with it.

    `untie`: the head becomes a copy of the embedding table if it was that table itself.
    """
    depth = int(net.config.num_hidden_layers)
    place = layer_list(net.network, depth)
    config = copy.deepcopy(net.network.config)
    text = config.get_text_config()
    text.num_hidden_layers = len(kept)
    for name, value in list(vars(text).items()):
        # Some families say layer by layer which kind of attention or position each has.
        if isinstance(value, list) and len(value) == depth:
            setattr(text, name, [value[i] for i in kept])
    tied = bool(getattr(config, "tie_word_embeddings", False))
    if untie and tied:
        config.tie_word_embeddings = False
        text.tie_word_embeddings = False
    with quiet_transformers():
        small: Any = type(net.network)(config)
    state = {}
    new_index = {old: new for new, old in enumerate(kept)}
    for name, tensor in net.network.state_dict().items():
        if name.startswith(f"{place}."):
            index, _, rest = name.removeprefix(f"{place}.").partition(".")
            if int(index) not in new_index:
                continue
            name = f"{place}.{new_index[int(index)]}.{rest}"
        state[name] = tensor.detach().float().cpu() if tensor.is_floating_point() else tensor.detach().cpu()
    missing, unexpected = small.load_state_dict(state, strict=False)
    if untie and tied:
        small.get_output_embeddings().weight.data.copy_(net.network.get_input_embeddings().weight.detach())
    strange = [name for name in missing if name not in _tied_names(small)] + list(unexpected)
    if strange:
        raise RefusedInput(
            f"post.distillation: every weight of the small model must come from the large one, and {strange[0]} does "
            "not; name a small model of your own as the role `student`"
        )
    return small.float().eval()


def _tied_names(network: Any) -> set[str]:
    """Names of weights that are others under a second name."""
    output = network.get_output_embeddings()
    return {
        name
        for name, p in network.named_parameters(remove_duplicate=False)
        if output is not None and p is output.weight
    }


def head_parameters(network: Any, masked: bool) -> list[nn.Parameter]:
    """The parameters of the language-model head, which distillation freezes."""
    from privkt_post.networks import masked_head

    if masked:
        return list(masked_head(network).parameters())
    return list(network.get_output_embeddings().parameters())
