"""What a model block of the `transformers` backend may say. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from privkt.config import describe
from privkt.privacy import RefusedInput


class LoraOptions(BaseModel):
    """A low-rank adapter: `alpha` None is 2 x rank; `targets` names modules or says "all-linear"; `layers` keeps it to
    the last so many layers (less to compute, fewer noisy coordinates).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=8, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] | Literal["all-linear"] | None = None
    layers: int | None = Field(default=None, ge=1)

    @property
    def scale_numerator(self) -> float:
        """The alpha that PEFT is given."""
        return self.alpha if self.alpha is not None else 2.0 * self.rank


class Options(BaseModel):
    """Options of the backend. `model`: a folder, a known small model's name, or a hub id.

    `batch_tokens`: how many tokens (padding included) one batch of inference may hold. `classifier`: how labels are
    chosen, by a linear "head" over pooled features or by "label-tokens" (a causal model's score of each label's name
    after `cue`). `pooling` None takes what the model's folder says, else the mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    lora: LoraOptions | None = None
    batch_tokens: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    classifier: Literal["head", "label-tokens"] = "head"
    cue: str = "\nLabel:"
    pooling: Literal["mean", "cls", "last", "max"] | None = None

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if re.fullmatch(r"auto|cpu|(cuda|xpu)(:\d+)?|mps", value) is None:
            raise ValueError("must be auto, cpu, cuda, cuda:N, xpu or mps")
        return value


def parse_options(options: Mapping[str, Any], role: str) -> Options:
    """Options from a model block. Raises RefusedInput naming every fault and the nearest valid name."""
    try:
        return Options.model_validate(dict(options))
    except ValidationError as error:
        raise RefusedInput(describe(f"models.{role} (backend transformers)", error, Options)) from None


def parse_lora(values: Mapping[str, Any], where: str) -> LoraOptions:
    """LoRA settings from a mapping such as `Recipe.lora`. Raises RefusedInput as `parse_options` does."""
    try:
        return LoraOptions.model_validate(dict(values))
    except ValidationError as error:
        raise RefusedInput(describe(where, error, LoraOptions)) from None
