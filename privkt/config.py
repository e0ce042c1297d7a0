"""The YAML config of a run, validated before anything else happens."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from privkt.privacy import Neighbouring, RefusedInput, Unit

_ALTERNATIVES = frozenset(
    {"int", "float", "str", "bool", "literal", "list", "tuple", "dict", "none"}
)  # pydantic's names


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetConfig(_Block):
    """What may be spent. `delta` None takes min(1e-5, 1/(10 N)); `cap_epsilon` None makes the cap this run's epsilon.

    `reproduce` allows a paper's delta = 1/N, with a warning.
    """

    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1)
    unit: Unit = Unit.RECORD
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT
    cap_epsilon: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    cap_delta: float | None = Field(default=None, ge=0, lt=1)
    filter: Literal["basic", "zcdp"] = "basic"
    reproduce: bool = False


class DataConfig(BaseModel):
    """A data block; further keys go to the dataset plugin as its options.

    `public` must be said of every block that a method reads as public: whoever writes it vouches that no private row is
    among them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    source: str = "json"
    path: str | None = None
    text: str = "text"
    label: str | None = None
    labels: tuple[str, ...] | None = None
    public: bool = False

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def columns(self) -> tuple[str, ...]:
        """What the block lists under `columns`; nothing where that is no list, which its dataset plugin refuses."""
        listed = self.options.get("columns")
        return tuple(listed) if isinstance(listed, list | tuple) else ()


class PrivateDataConfig(DataConfig):
    """A client's data: `name` identifies its ledger, `size` is the declared, public N."""

    name: str
    size: int = Field(gt=0, strict=True)


class ClientConfig(_Block):
    """One client. Its own `models` and `budget` override the run's."""

    name: str
    data: PrivateDataConfig
    budget: BudgetConfig | None = None
    evaluation: DataConfig | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class ModelConfig(BaseModel):
    """A model role: `backend` names a plugin, everything else are its options (`model`, `base_url`, `lora`, ...)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    backend: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EvaluationConfig(_Block):
    """Held-out labelled rows on which every arm is scored, locally."""

    data: DataConfig


class RunConfig(_Block):
    """A whole run. `method_config` is the block named after the method (`fdkt: {...}`), which the method checks."""

    method: str
    budget: BudgetConfig
    clients: tuple[ClientConfig, ...] = Field(min_length=1)
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    evaluation: EvaluationConfig | None = None
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    method_config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> RunConfig:
        for what, names in (
            ("client names", [c.name for c in self.clients]),
            ("data names", [c.data.name for c in self.clients]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what} must differ (a ledger belongs to one data set), got {twice[0]!r} twice")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ, and one stands there twice; each gives one result")
        return self


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice in one mapping is a fault: plain YAML keeps the last in silence."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:  # before merge keys (<<) add theirs, which may be overridden
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands there twice", key_node.start_mark)
        seen |= {key} if key is not None else set()
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_config(path: Path | str) -> RunConfig:
    """Reads and validates a YAML file. Raises RefusedInput naming the key, the rule, what came and the nearest name."""
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except FileNotFoundError:
        raise RefusedInput(f"config: no file at {path}; give the path of a YAML config") from None
    except UnicodeDecodeError:
        raise RefusedInput(f"config: {path} must be UTF-8 text; convert it") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", "") or "" if isinstance(error, yaml.constructor.ConstructorError) else ""
        twice = f": {what}" if what.endswith("twice") else ""
        raise RefusedInput(f"config: {path} is not valid YAML{where}{twice}; mend the file") from None
    except (ValueError, RecursionError):
        raise RefusedInput(f"config: {path} holds a value that YAML cannot read; quote dates and plain text") from None
    return parse_config(raw, base=path.parent)


def parse_config(raw: Any, base: Path | None = None) -> RunConfig:
    """A RunConfig from plain values; `base` makes relative data paths absolute."""
    if not isinstance(raw, dict):
        raise RefusedInput(f"config: must be a mapping with at least `method`, got {type(raw).__name__}")
    raw = dict(raw)
    if "client" in raw and "clients" not in raw:
        client = raw.pop("client")
        if not isinstance(client, dict):
            raise RefusedInput(
                f"config: `client` must be a mapping with `data`, got {type(client).__name__}; "
                "write `client: {data: ...}`"
            )
        raw["clients"] = [{"name": "client", **client}]
    if "seed" in raw and "seeds" not in raw:
        raw["seeds"] = [raw.pop("seed")]
    method = raw.get("method")
    if isinstance(method, str):
        block = method.rpartition(":")[2]
        if block in raw and block not in RunConfig.model_fields:
            settings = raw.pop(block)
            if not isinstance(settings, dict | None):
                raise RefusedInput(f"config: `{block}` must be a mapping of its keys, got {type(settings).__name__}")
            raw["method_config"] = settings or {}
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        extra = () if method is None else (str(method).rpartition(":")[2],)
        raise RefusedInput(describe("config", error, RunConfig, extra=extra)) from None
    return _with_absolute_paths(config, base) if base else config


def describe(subject: str, error: ValidationError, model: type[BaseModel], extra: tuple[str, ...] = ()) -> str:
    """All faults of a validation, one a line, with the nearest valid name for an unknown key.

    `extra` are further names at the top: that of the method's block, as the config spells the method.
    """
    lines = []
    for fault in _joined(error.errors()):
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            names = _names_at(model, fault["loc"][:-1]) + (list(extra) if len(fault["loc"]) == 1 else [])
            near = difflib.get_close_matches(str(fault["loc"][-1]), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(sorted(names))}"
            if near and near[0] in extra and len(fault["loc"]) == 1:
                hint = (
                    f"a method's block bears the name given under `method`, which is {near[0]!r}; one of the two is "
                    "misspelt"
                )
            lines.append(f"{subject}: unknown key {place!r}; {hint}")
        elif fault["type"] == "missing":
            lines.append(f"{subject}: key {place!r} is missing; add it")
        else:
            # The value itself may be a path or a secret-bearing URL: its type says enough.
            came = fault["input"]
            # One of a closed list of words is no secret, and what it may be follows.
            is_word = fault["type"] in ("enum", "literal_error") and isinstance(came, str) and came.isidentifier()
            shown = repr(came) if isinstance(came, int | float | None) or is_word else type(came).__name__
            # What a rule over several keys says names them itself; that their block is a mapping says nothing.
            got = "" if fault["type"] == "value_error" and isinstance(came, dict) else f", got {shown}"
            hint = "; put it in quotes" if fault["type"] == "string_type" and isinstance(came, int | float) else ""
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(f"{subject}: {place or 'config'}: {message}{got}{hint}")
    return "\n".join(lines)


def _joined(faults: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The faults, those of the alternatives of one key as one: pydantic gives each under a place of its own."""
    for (loc, _), group in itertools.groupby(faults, key=lambda fault: (_key_of(fault), id(fault["input"]))):
        found = list(group)
        if len(found) == 1:
            yield found[0]
        else:
            rules = [fault["msg"].removeprefix("Input should be ").partition(",")[0] for fault in found]
            yield {**found[0], "loc": loc, "type": "alternatives", "msg": f"must be {', or '.join(rules)}"}


def _key_of(fault: Mapping[str, Any]) -> tuple[Any, ...]:
    """The place of the key a fault is about, without the name of the alternative that was tried."""
    loc: tuple[Any, ...] = fault["loc"]
    alternative = len(loc) > 1 and str(loc[-1]).partition("[")[0] in _ALTERNATIVES
    return loc[:-1] if alternative and fault["type"] not in ("extra_forbidden", "missing") else loc


def _names_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    here: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        found = getattr(here, "model_fields", {}).get(part)
        if found is None:
            return []
        here = found.annotation
        for inner in getattr(here, "__args__", ()):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                here = inner
                break
    return list(getattr(here, "model_fields", {}))


def _with_absolute_paths(config: RunConfig, base: Path) -> RunConfig:
    def placed(data: DataConfig) -> DataConfig:
        if data.path is None or Path(data.path).is_absolute():
            return data
        return data.model_copy(update={"path": str((base / data.path).resolve())})

    clients = tuple(
        c.model_copy(
            update={
                "data": placed(c.data),
                "evaluation": placed(c.evaluation) if c.evaluation else None,
            }
        )
        for c in config.clients
    )
    evaluation = EvaluationConfig(data=placed(config.evaluation.data)) if config.evaluation else None
    settings = _with_placed_blocks(config.method_config, base)
    return config.model_copy(update={"clients": clients, "evaluation": evaluation, "method_config": settings})


def _with_placed_blocks(values: Any, base: Path) -> Any:
    """A method's settings in which data blocks, mappings of `source` and `path`, have absolute paths."""
    if isinstance(values, list):
        return [_with_placed_blocks(value, base) for value in values]
    if not isinstance(values, dict):
        return values
    placed = {key: _with_placed_blocks(value, base) for key, value in values.items()}
    path = placed.get("path")
    if "source" in placed and isinstance(path, str) and not Path(path).is_absolute():
        placed["path"] = str((base / path).resolve())
    return placed
