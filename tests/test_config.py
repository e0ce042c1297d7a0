"""The YAML config: what is accepted, and what each mistake is told, one mistake at a time."""

import copy
import json
import re
from pathlib import Path
from typing import Literal

import pytest
import yaml
from privkt_datasets.csv_rows import CsvDataset
from privkt_datasets.hub_rows import HubDataset
from privkt_datasets.options import COMMON
from pydantic import BaseModel, ValidationError, model_validator

from privkt.config import BudgetConfig, ClientConfig, DataConfig, RunConfig, describe, load_config, parse_config
from privkt.contracts import MethodConfig
from privkt.privacy import Neighbouring, RefusedInput, Unit

GOOD = {
    "method": "fdkt",
    "budget": {"epsilon": 8, "delta": 1e-5, "unit": "record", "neighbouring": "zero-out"},
    "clients": [
        {
            "name": "a",
            "data": {"name": "reviews", "size": 2000, "source": "json", "path": "train.jsonl", "label": "label"},
        }
    ],
    "models": {"slm": {"backend": "transformers", "model": "x", "lora": {"rank": 8}}},
    "evaluation": {"data": {"source": "json", "path": "test.jsonl", "text": "text"}},
    "fdkt": {"cluster_size": 4},
    "seed": 3,
}


def changed(path, value):
    raw = copy.deepcopy(GOOD)
    here = raw
    *parents, last = path
    for part in parents:
        here = here[part]
    if value is KeyError:
        del here[last]
    else:
        here[last] = value
    return raw


def test_a_good_config_is_read():
    config = parse_config(GOOD)
    assert config.method_config == {"cluster_size": 4}
    assert config.seeds == (3,)
    assert (config.budget.unit, config.budget.neighbouring) == (Unit.RECORD, Neighbouring.ZERO_OUT)
    assert config.models["slm"].options == {"model": "x", "lora": {"rank": 8}}
    assert config.clients[0].data.options == {}


CLIENT = ("clients", 0, "data")
MISTAKES = [
    (("metod",), "fdkt", "unknown key 'metod'; did you mean 'method'?"),
    (
        ("fdtk",),
        {},
        "unknown key 'fdtk'; a method's block bears the name given under `method`, which is 'fdkt'; one of",
    ),
    (("method",), KeyError, "key 'method' is missing; add it"),
    (("budget", "epsilom"), 1, "unknown key 'budget.epsilom'; did you mean 'epsilon'?"),
    (("budget", "epsilon"), KeyError, "key 'budget.epsilon' is missing; add it"),
    (("budget", "epsilon"), 0, "budget.epsilon: Input should be greater than 0, got 0"),
    (("budget", "unit"), "recrod", "got 'recrod'"),
    (("budget", "unit"), "https://me:word@host", "got str"),
    (("budget", "epsilon"), -1, "budget.epsilon: Input should be greater than 0, got -1"),
    (("budget", "epsilon"), float("nan"), "budget.epsilon: Input should be a finite number, got nan"),
    (("budget", "epsilon"), float("inf"), "budget.epsilon: Input should be a finite number, got inf"),
    (("budget", "epsilon"), "much", "budget.epsilon: Input should be a valid number"),
    (("budget", "delta"), 0, "budget.delta: Input should be greater than 0, got 0"),
    (("budget", "delta"), 1, "budget.delta: Input should be less than 1, got 1"),
    (("budget", "cap_epsilon"), -2, "budget.cap_epsilon: Input should be greater than 0"),
    (("budget", "unit"), "person", "budget.unit: Input should be 'token', 'document', 'record' or 'user'"),
    (("budget", "neighbouring"), "near", "budget.neighbouring: Input should be"),
    (("clients",), [], "clients: Tuple should have at least 1 item"),
    ((*CLIENT, "size"), 0, "clients.0.data.size: Input should be greater than 0, got 0"),
    ((*CLIENT, "size"), True, "clients.0.data.size: Input should be a valid integer, got True"),
    ((*CLIENT, "size"), KeyError, "key 'clients.0.data.size' is missing"),
    ((*CLIENT, "name"), KeyError, "key 'clients.0.data.name' is missing"),
    ((*CLIENT, "labels"), [False, True], "labels.0: Input should be a valid string, got False; put it in quotes"),
    (("clients", 0, "dta"), 1, "unknown key 'clients.0.dta'; did you mean 'data'?"),
    (("models", "slm", "backend"), KeyError, "key 'models.slm.backend' is missing"),
    (("seeds",), [], "seeds: Tuple should have at least 1 item"),
    (("seeds",), [1, 1], "seeds must differ"),
    (("fdkt",), [1], "`fdkt` must be a mapping of its keys, got list"),
]


@pytest.mark.parametrize(("path", "value", "words"), MISTAKES)
def test_a_mistake_is_told_by_its_place(path, value, words):
    raw = changed(path, value)
    if path == ("seeds",):
        del raw["seed"]
    with pytest.raises(RefusedInput) as caught:
        parse_config(raw)
    assert words in str(caught.value)
    assert str(caught.value).startswith("config: ")


@pytest.mark.parametrize(("what", "field"), [("client names", "name"), ("data names", "data")])
def test_names_must_differ_between_clients(what, field):
    other = {"name": "b", "data": {**GOOD["clients"][0]["data"], "name": "other"}}
    assert len(parse_config(changed(("clients",), [GOOD["clients"][0], other])).clients) == 2
    other[field] = GOOD["clients"][0][field]
    with pytest.raises(RefusedInput, match=f"{what} must differ"):
        parse_config(changed(("clients",), [GOOD["clients"][0], other]))


def test_every_mistake_is_told_at_once():
    raw = changed(("budget", "epsilon"), -1)
    raw["metod"] = 1
    with pytest.raises(RefusedInput) as caught:
        parse_config(raw)
    assert len(str(caught.value).splitlines()) == 2


def test_text_that_came_is_not_repeated():
    with pytest.raises(RefusedInput) as caught:
        parse_config(changed(("budget", "epsilon"), "canary-1148"))
    assert "canary" not in str(caught.value)


def test_one_client_may_be_written_short():
    raw = {k: v for k, v in GOOD.items() if k != "clients"} | {"client": {"data": GOOD["clients"][0]["data"]}}
    assert parse_config(raw).clients[0].name == "client"
    with pytest.raises(RefusedInput, match="`client` must be a mapping with `data`, got str"):
        parse_config({**raw, "client": "a"})


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_a_config_is_a_mapping(raw):
    with pytest.raises(RefusedInput, match="must be a mapping with at least `method`"):
        parse_config(raw)


def test_a_method_of_a_distribution_finds_its_block():
    raw = {k: v for k, v in GOOD.items() if k != "fdkt"} | {"method": "acme:other", "other": {"x": 1}}
    assert parse_config(raw).method_config == {"x": 1}


def written(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_relative_data_paths_start_at_the_configs_folder(tmp_path):
    import yaml

    config = load_config(written(tmp_path, yaml.safe_dump(GOOD)))
    assert config.clients[0].data.path == str(tmp_path / "train.jsonl")
    assert config.evaluation.data.path == str(tmp_path / "test.jsonl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("a: [1\nb: 2", "is not valid YAML at line 2"),
        ("method: a\nmethod: b", "is not valid YAML at line 2, column 1: key 'method' stands there twice"),
        ("budget: {epsilon: 1, epsilon: 2}", "key 'epsilon' stands there twice"),
        ("a: !!python/object:os.system x", "is not valid YAML at line 1"),
        ("a: 2020-13-45", "holds a value that YAML cannot read"),
        ("{[1, 2]: 3}", "is not valid YAML"),
        (b"method: \xff\xfe", "must be UTF-8 text"),
        ("1: 2", "Keys should be strings"),
    ],
)
def test_files_that_are_no_config(tmp_path, text, words):
    with pytest.raises(RefusedInput) as caught:
        load_config(written(tmp_path, text))
    assert words in str(caught.value)


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(RefusedInput, match="no file at"):
        load_config(tmp_path / "none.yaml")


def test_anchors_and_merge_keys_still_work(tmp_path):
    text = "base: &b {epsilon: 1}\nbudget:\n  <<: *b\n  epsilon: 2\n"
    with pytest.raises(RefusedInput, match="unknown key 'base'"):
        load_config(written(tmp_path, text))


def test_a_key_that_is_called_like_an_alternative_keeps_its_name():
    class Mine(BaseModel):
        words: dict[str, tuple[str, ...]] = {}

    with pytest.raises(ValidationError) as caught:
        Mine.model_validate({"words": {"none": 3, "plain": ["x"]}})
    assert describe("m", caught.value, Mine).startswith("m: words.none: ")
    with pytest.raises(RefusedInput, match="unknown key 'list'"):
        parse_config({**GOOD, "list": 1})


def test_alternatives_of_one_key_are_one_fault_and_rules_over_keys_say_no_type():
    class Mine(BaseModel):
        alpha: float | Literal["public", "heuristic"] = 0.5
        first: int = 1
        last: int = 2

        @model_validator(mode="after")
        def _ordered(self):
            if self.first > self.last:
                raise ValueError("first must be at most last")
            return self

    with pytest.raises(ValidationError) as caught:
        Mine.model_validate({"alpha": "auto"})
    assert describe("m", caught.value, Mine) == (
        "m: alpha: must be a valid number, or 'public' or 'heuristic', got str"
    )
    with pytest.raises(ValidationError) as caught:
        Mine.model_validate({"first": 3})
    assert describe("m", caught.value, Mine) == "m: config: first must be at most last"


def test_describe_serves_a_methods_own_config():
    class Mine(MethodConfig):
        cluster_size: int = 4

    with pytest.raises(ValidationError) as caught:
        Mine.model_validate({"clustersize": 3})
    assert describe("fdkt", caught.value, Mine) == "fdkt: unknown key 'clustersize'; did you mean 'cluster_size'?"


PAGE = (Path(__file__).parents[1] / "docs" / "config.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("title", "model", "more"),
    [
        ("Every key", RunConfig, ()),
        ("Of a budget", BudgetConfig, ()),
        ("Of a client", ClientConfig, ()),
        ("Of a data block", DataConfig, (*COMMON, *CsvDataset.own_options, *HubDataset.own_options)),
    ],
)
def test_the_page_has_every_key_with_its_default(title, model, more):
    part = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (`[\w`, ]+`) \| ([^|]+) \|", part, re.M))
    listed = {name: default for names, default in rows.items() for name in re.findall(r"\w+", names)}
    assert sorted(listed) == sorted({*model.model_fields, *more})
    for name, field in model.model_fields.items():
        if field.is_required():
            assert listed[name] == "required", name
        else:
            given = field.get_default(call_default_factory=True)
            assert yaml.safe_load(listed[name].strip("`")) == json.loads(json.dumps(given)), name


def test_the_example_of_the_page_is_a_config():
    written = PAGE.split("```yaml\n")[1].split("```")[0]
    assert parse_config(yaml.safe_load(written)).clients[0].data.size == 1200


def test_the_schema_is_json():
    assert RunConfig.model_json_schema()["type"] == "object"


def test_data_blocks_of_a_method_start_at_the_configs_folder_like_all_others(tmp_path):
    raw = {
        "method": "m",
        "budget": {"epsilon": 1},
        "client": {"data": {"name": "d", "size": 1, "path": "rows.jsonl"}},
        "m": {
            "public": {"source": "json", "path": "more.jsonl"},
            "path": "stays",
            "list": [{"source": 1, "path": "/a"}],
        },
    }
    config = parse_config(raw, base=tmp_path)
    assert config.clients[0].data.path == str(tmp_path / "rows.jsonl")
    assert config.method_config == {
        "public": {"source": "json", "path": str(tmp_path / "more.jsonl")},
        "path": "stays",
        "list": [{"source": 1, "path": "/a"}],
    }
