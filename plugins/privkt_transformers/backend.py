"""The `transformers` backend: one model in this process, behind the contract. Torch is imported on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from privkt.contracts import (
    Adapter,
    Backend,
    BackendContext,
    BackendError,
    Capability,
    CapabilityMissing,
    Example,
    Generation,
    Model,
    Privacy,
    Progress,
    Prompt,
    Recipe,
    Sampling,
    Score,
    SoftPrompt,
)
from privkt.privacy import RefusedInput, Release
from privkt_transformers.folders import ModelPlace
from privkt_transformers.options import parse_options

if TYPE_CHECKING:
    import torch

    from privkt_transformers.loading import Loaded

_PROBE = "The weather is nice today."


class TransformersBackend(Backend):
    """A Hugging Face model in this process. Weights are loaded on first use and shared by all roles that name them.

    `with_weights` gives another backend over the same shared weights; neither ever changes them.
    """

    remote = False
    declared = frozenset(Capability)

    def __init__(
        self,
        options: Mapping[str, Any],
        context: BackendContext,
        *,
        weights: Adapter | SoftPrompt | Model | None = None,
    ) -> None:
        super().__init__(options, context)
        self.settings = parse_options(options, context.role)
        self.weights = weights
        self.place = ModelPlace(self.settings.model)

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def context_tokens(self) -> int | None:
        """What config.json says; nothing is loaded for it."""
        return self.place.context

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """By the model's own tokenizer, as `generate` and `score` read prompts."""
        from privkt_transformers.prompts import encode_prompts

        return [len(row) for row in encode_prompts(self.loaded, texts)]

    def check(self) -> None:
        """Refuses a model that is missing, malformed, or of a kind that this backend cannot run."""
        self.place.check()

    def probe(self) -> frozenset[Capability]:
        """What works, found by running fixed public strings through the model."""
        found = {Capability.TRAIN, Capability.CLASSIFY, Capability.ADAPTERS}
        vector = self.embed([_PROBE])
        if not np.isfinite(vector).all():
            raise BackendError(f"model {self.name!r}: embeddings must be finite numbers; use `dtype: float32`")
        found.add(Capability.EMBED)
        if self.place.generative:
            self.generate([_PROBE], Sampling(max_new_tokens=1, temperature=0))
            if np.isfinite(self.score([_PROBE], [" Yes"])[0].logprob):
                found.add(Capability.SCORE)
            found |= {Capability.GENERATE, Capability.CHAT}
        from privkt import kernels

        if kernels.is_private():
            found.add(Capability.TRAIN_PRIVATE)
        return frozenset(found)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, progress: Progress | None = None
    ) -> list[Generation]:
        """One answer a prompt, in order (see `privkt_transformers.generation`)."""
        from privkt_transformers.generation import generate

        loaded = self._need_generative(Capability.GENERATE)
        total = len(prompts) * sampling.max_new_tokens
        task = (progress or self.context.progress).task(f"{self.name} writes", total, "tokens")
        return generate(loaded, prompts, sampling, batch_tokens=self.batch_tokens(generating=True), task=task)

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        """Log-likelihood of each continuation after its prompt (see `privkt_transformers.scoring`)."""
        from privkt_transformers.scoring import score

        loaded = self._need_generative(Capability.SCORE)
        room = {"batch_tokens": self.batch_tokens(), "cache_tokens": self.batch_tokens(generating=True)}
        return score(loaded, prompts, continuations, **room)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Sentence embeddings (see `privkt_transformers.embedding`)."""
        from privkt_transformers.embedding import embed, pooling_of

        pooling = pooling_of(self.loaded.folder, self.loaded.context, self.settings.pooling)
        return embed(self.loaded, texts, pooling, batch_tokens=self.batch_tokens())

    def train(
        self,
        examples: Sequence[Example],
        recipe: Recipe,
        *,
        folder: Path,
        privacy: Privacy | None = None,
        progress: Progress | None = None,
    ) -> Release[Adapter] | Release[Model] | Adapter | Model:
        """Trains a copy, privately with `privacy` (see `privkt_transformers.training`)."""
        from privkt_transformers.training import train

        shown = progress or self.context.progress
        return train(self, examples, recipe, folder=folder, privacy=privacy, progress=shown)

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
        """Class probabilities, [n, len(labels)] (see `privkt_transformers.classification`)."""
        from privkt_transformers.classification import classify

        return classify(self, texts, labels)

    def with_weights(self, weights: Adapter | SoftPrompt | Model) -> TransformersBackend:
        """The same model with an adapter, a soft prompt or other weights in place."""
        if not isinstance(weights, Adapter | SoftPrompt | Model):
            raise RefusedInput(
                f"model {self.name!r}: weights must be an Adapter, a SoftPrompt or a Model, got "
                f"{type(weights).__name__}; hand on what `train` returned (the payload of a Release)"
            )
        return TransformersBackend(self.options, self.context, weights=weights)

    def weights_folder(self) -> Path:
        """The folder of the model, or of the trained Model that is in place; an adapter is not part of it."""
        return self.place_of_weights.fetch()

    def release_memory(self) -> None:
        """Frees what only this backend uses; weights that another role shares stay."""
        from privkt_transformers.feature_memory import forget_features
        from privkt_transformers.loading import forget

        vars(self).pop("loaded", None)
        forget(self)
        forget_features()

    def batch_tokens(self, *, generating: bool = False) -> int:
        """How many tokens one batch of inference holds, from the options or the device."""
        from privkt_transformers.devices import tokens_at_once

        return tokens_at_once(self.settings.batch_tokens, self.loaded.device, generating=generating)

    @property
    def place_of_weights(self) -> ModelPlace:
        """Where the whole weights come from: a trained Model, else the model of the config."""
        return ModelPlace(str(self.weights.folder)) if isinstance(self.weights, Model) else self.place

    @property
    def identity(self) -> str:
        """What a training of this backend depends on beside its examples and recipe."""
        adapter = ""
        if isinstance(self.weights, Adapter):
            adapter = hashlib.sha256(b"".join(v for _, v in sorted(self.weights.files.items()))).hexdigest()
        return f"{self.place_of_weights.fetch()}|{self.settings.model_dump_json()}|{adapter}"

    @property
    def inference_dtype(self) -> torch.dtype:
        """The precision of frozen weights."""
        from privkt_transformers.devices import pick_device, pick_dtype

        return pick_dtype(self.settings.dtype, pick_device(self.settings.device))

    @property
    def computes_in_bfloat16(self) -> bool:
        """Whether ordinary training of float32 weights multiplies in bfloat16."""
        import torch

        return self.inference_dtype == torch.bfloat16

    @cached_property
    def loaded(self) -> Loaded:
        """The model, loaded on first use, with this backend's weights in place."""
        return self._load(self.inference_dtype)

    def base_for(self, *, float32: bool) -> Loaded:
        """What a training begins from; its weights are shared, so it works on copies. An adapter is left out."""
        import torch

        if isinstance(self.weights, Adapter):
            return self._load(torch.float32 if float32 else self.inference_dtype, bare=True)
        return self._load(torch.float32) if float32 else self.loaded

    def _load(self, dtype: torch.dtype, *, bare: bool = False) -> Loaded:
        import torch

        from privkt_transformers import adapters
        from privkt_transformers.devices import pick_device
        from privkt_transformers.loading import load

        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        place = self.place_of_weights
        base = load(
            place.fetch(),
            dtype=dtype,
            device=pick_device(self.settings.device),
            generative=place.generative,
            user=self,
        )
        if bare:
            return base
        if isinstance(self.weights, Adapter):
            return adapters.with_adapter(base, self.weights)
        if isinstance(self.weights, SoftPrompt):
            return adapters.with_soft_prompt(base, self.weights)
        return base

    def _need_generative(self, capability: Capability) -> Loaded:
        if not self.place.generative:
            raise CapabilityMissing(
                f"backend transformers (role {self.context.role!r}) cannot {capability}: {self.name!r} is an encoder "
                f"({self.place.config['model_type']}); give this role a causal language model"
            )
        return self.loaded
