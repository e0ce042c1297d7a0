"""Step 1: an adapter trained on private pairs under differential privacy; nothing else of them leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from privkt.contracts import Adapter, Backend, BackendError, Privacy, Progress
from privkt.privacy import RefusedInput, Release
from privkt_knowledgesg.config import TuningConfig
from privkt_knowledgesg.pairs import Pair, PairTemplate

_WEIGHTS = "adapter_model.safetensors"


def tune_adapter(
    base: Backend,
    pairs: Sequence[Pair],
    template: PairTemplate,
    config: TuningConfig,
    *,
    privacy: Privacy,
    folder: Path,
    seed: int,
    progress: Progress,
) -> Release[Adapter]:
    """The adapter after all steps of one private training, charged before the first.

    Guarantee: one record is one example; noise is calibrated to the total number of steps.
    Raises: RefusedInput, without LoRA; BackendError, for an adapter that the training did not move.
    """
    recipe = config.recipe(base.options, seed)
    if recipe.lora is None:
        raise RefusedInput(
            "knowledgesg.tuning.lora: must say what adapter is trained, since an adapter is what crosses, got nothing "
            "here or at models.base; write e.g. {rank: 16, alpha: 32}"
        )
    examples = [template.example(pair, config.loss) for pair in pairs]
    release = base.train(examples, recipe, folder=folder, privacy=privacy, progress=progress)
    if not isinstance(release, Release) or not isinstance(release.payload, Adapter):
        raise TypeError(f"knowledgesg: backend {base.name!r} must give a Release of an Adapter for a private training")
    need_moved(release.payload)
    return release


def need_moved(adapter: Adapter) -> None:
    """Refuses a LoRA adapter that is still at its start, where its second factors are all zero.

    A model that is wrapped before it moves to its device can train nothing for a whole run while an epsilon is reported
    (Opacus issue 820). PrivateTraining looks after its own first step; this looks at what any backend hands over.
    """
    from safetensors.torch import load

    second = {name: tensor for name, tensor in load(adapter.files[_WEIGHTS]).items() if "lora_B" in name}
    if second and not any(bool(tensor.any()) for tensor in second.values()):
        raise BackendError(
            "knowledgesg: the training must move the adapter, and all of its second factors are still zero: nothing "
            "was learnt; move the model to its device before it is wrapped"
        )
