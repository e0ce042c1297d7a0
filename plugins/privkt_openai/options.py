"""The options of the `openai` backend and the rules for where text and keys may go."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from privkt.config import describe
from privkt.privacy import RefusedInput

DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
# The backend writes these fields itself; an extra_body that set them would make keys of the cache lie.
OWN_FIELDS = frozenset({"model", "messages", "prompt", "input", "stream", "n", "echo", "logprobs", "seed"})


class Options(BaseModel):
    """What `models.<role>` may say when `backend: openai`.

    Units: timeout and backoff in seconds; `max_retries` counts further attempts after the first.
    Edge cases: `seed` applies where a call's Sampling has none; `embedding_model` None means `model`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    base_url: str
    model: str = Field(min_length=1)
    api_key_env: str | None = None
    endpoint: Literal["auto", "chat", "completions"] = "auto"
    embedding_model: str | None = None
    concurrency: int = Field(default=8, ge=1, le=1024)
    timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    max_retries: int = Field(default=6, ge=0, le=100)
    backoff: float = Field(default=0.5, ge=0, le=60)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    allow_plain_http: bool = False

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        rule = 'must be like "http://127.0.0.1:8000/v1" or "https://HOST/v1"'
        try:
            parts = urlsplit(value)
            port_is_valid = parts.port is None or parts.port > 0
        except ValueError:
            raise ValueError(f"{rule}; this is not a URL") from None
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"{rule}; it must begin with http:// or https://")
        if not parts.hostname or not port_is_valid or re.search(r"\s", value):
            raise ValueError(f"{rule}; host or port is missing or malformed")
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"{rule}, without user or password; name a key's variable in api_key_env")
        if parts.query or parts.fragment:
            raise ValueError(f"{rule}, without ? or #; further request fields go to extra_body")
        if re.search(r"/(completions|embeddings|models)/?$", parts.path):
            raise ValueError(f"{rule}, the part before /chat/completions; cut the rest off")
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        # A pasted key must not be echoed: the rule alone says enough.
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("must be the NAME of an environment variable (letters, digits, _), not a key")
        return value

    @field_validator("extra_body")
    @classmethod
    def _leaves_our_fields_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(OWN_FIELDS & set(value))
        if taken:
            raise ValueError(f"must not set {', '.join(taken)}, which the backend sets itself; remove it")
        return value

    @property
    def address(self) -> SplitResult:
        return urlsplit(self.base_url)

    @property
    def on_loopback(self) -> bool:
        """Whether the host is this machine by its very name, so that no resolver is asked."""
        host = self.address.hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def key_variable(self) -> str | None:
        """The variable that holds the key; the default one is meant only for a server reached by https."""
        if self.api_key_env is not None:
            return self.api_key_env
        if self.on_loopback or self.address.scheme == "http":
            return None
        return DEFAULT_KEY_VARIABLE

    @property
    def public_model(self) -> str:
        """The model's name without folders of a machine; a hub id keeps its owner."""
        name = self.model
        if name.startswith(("/", ".", "~")) or "\\" in name or re.match(r"[A-Za-z]:", name):
            return re.split(r"[\\/]", name.rstrip("\\/"))[-1] or "model"
        return name


def parse_options(options: Mapping[str, Any], role: str) -> Options:
    """Options from a config block. Raises RefusedInput naming the key, the rule and the nearest valid name."""
    try:
        parsed = Options.model_validate(dict(options))
    except ValidationError as error:
        raise RefusedInput(describe(f"models.{role} (backend openai)", error, Options)) from None
    if parsed.address.scheme == "http" and not (parsed.on_loopback or parsed.allow_plain_http):
        raise RefusedInput(
            f"models.{role} (backend openai): base_url must use https for a host that is not this machine, got "
            f"http://{parsed.address.hostname}; use https, a tunnel to 127.0.0.1, or set `allow_plain_http: true` "
            "if everybody on the way may read the text"
        )
    return parsed


def read_key(options: Options, role: str) -> str | None:
    """The key from the environment, or None where no key is sent.

    Raises: RefusedInput, naming the variable, when it is unset or cannot be sent in a header.
    """
    variable = options.key_variable
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RefusedInput(
            f"models.{role} (backend openai): the environment variable {variable} must hold the key for "
            f"{options.address.hostname}, got none; export it, or name another variable in api_key_env"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise RefusedInput(
            f"models.{role} (backend openai): the key in {variable} must be printable ASCII without spaces, got "
            "other characters; export it again"
        )
    return key
