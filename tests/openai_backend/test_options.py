"""What a config may say, and where text and keys may go: refused before any request."""

from __future__ import annotations

import pytest
from privkt_openai.backend import OpenAIBackend

from privkt.contracts import BackendContext
from privkt.privacy import RefusedInput

GOOD = {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}


def check(**options):
    backend = OpenAIBackend({**GOOD, **options}, BackendContext(role="llm"))
    backend.check()
    return backend


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"base_url": "http://localhost:8000/v1/"},
        {"base_url": "http://[::1]:8000/v1"},
        {"base_url": "http://127.8.9.1/v1"},
        {"base_url": "http://10.0.0.5:8000/v1", "allow_plain_http": True},
        {"endpoint": "chat", "concurrency": 1, "timeout": 3, "max_retries": 0, "seed": 4},
        {"extra_body": {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}},
    ],
)
def test_these_pass(options):
    check(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_ulr": "x"}, r"models.llm \(backend openai\): unknown key 'base_ulr'; did you mean 'base_url'\?"),
        ({"api_key": "x"}, r"unknown key 'api_key'; did you mean 'api_key_env'\?"),
        ({"temprature": 1}, r"unknown key 'temprature'; "),
        ({"base_url": "127.0.0.1:8000"}, "base_url: must be like .* must begin with http"),
        ({"base_url": "ftp://127.0.0.1/v1"}, "must begin with http"),
        ({"base_url": "http://"}, "host or port is missing or malformed"),
        ({"base_url": "http://127.0.0.1:0/v1"}, "host or port is missing or malformed"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "not a URL"),
        ({"base_url": "http://[::1/v1"}, "not a URL"),
        ({"base_url": "http://exa mple/v1"}, "malformed"),
        ({"base_url": "http://127.0.0.1:8000/v1/chat/completions"}, "cut the rest off"),
        ({"base_url": "http://127.0.0.1:8000/v1?key=1"}, r"without \? or #"),
        ({"base_url": 7}, "base_url: .* string"),
        ({"model": ""}, "model: "),
        ({"endpoint": "responses"}, "endpoint: .*'auto', 'chat' or 'completions'"),
        ({"concurrency": 0}, "concurrency: .*greater than or equal to 1"),
        ({"concurrency": "many"}, "concurrency: .*integer"),
        ({"timeout": 0}, "timeout: .*greater than 0"),
        ({"timeout": float("nan")}, "timeout: "),
        ({"max_retries": -1}, "max_retries: "),
        ({"extra_body": {"stream": True}}, "extra_body: must not set stream"),
        ({"base_url": "http://10.0.0.5:8000/v1"}, "must use https .* got http://10.0.0.5; .*allow_plain_http: true"),
        ({"base_url": "http://localhost.example.org/v1"}, "must use https"),
        ({"base_url": "https://api.example.org/v1"}, "OPENAI_API_KEY must hold the key for api.example.org, got none"),
        ({"base_url": "https://api.example.org/v1", "api_key_env": "NO_SUCH"}, "NO_SUCH must hold the key"),
        ({"api_key_env": "NO_SUCH"}, "NO_SUCH must hold the key"),
    ],
)
def test_these_are_refused_with_the_key_the_rule_and_a_way_out(options, said):
    with pytest.raises(RefusedInput, match=said) as caught:
        check(**options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("missing", ["base_url", "model"])
def test_missing_keys_are_named(missing):
    options = {key: value for key, value in GOOD.items() if key != missing}
    with pytest.raises(RefusedInput, match=f"key '{missing}' is missing; add it"):
        OpenAIBackend(options, BackendContext(role="llm")).check()


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "http://user:sk-canary-9182@127.0.0.1:8000/v1"},
        {"api_key_env": "sk-canary-9182"},
        {"api_key": "sk-canary-9182"},
        {"base_url": "https://127.0.0.1:8000/v1?key=sk-canary-9182"},
    ],
)
def test_a_pasted_key_is_refused_without_showing_it(options):
    with pytest.raises(RefusedInput) as caught:
        check(**options)
    assert "canary" not in str(caught.value)


def test_a_key_that_fits_no_header_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-canary\nX-Other: 1")
    with pytest.raises(RefusedInput, match="key in MY_KEY must be printable ASCII") as caught:
        check(api_key_env="MY_KEY")
    assert "canary" not in str(caught.value)


def test_a_set_key_passes(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    check(base_url="https://api.example.org/v1")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("llama3.2:1b", "llama3.2:1b"),
        ("/home/ann/models/mine/", "mine"),
        ("./models/mine", "mine"),
        ("~/mine", "mine"),
        ("C:\\models\\mine", "mine"),
    ],
)
def test_the_public_name_has_no_folder_of_a_machine(model, name):
    assert check(model=model).name == name
