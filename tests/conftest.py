"""What all tests share: the user's ledgers out of reach, one thread, no model hub, small models."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

# A machine under load is slow at everything; what a test computes is what it is about.
settings.register_profile("privkt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("privkt")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """With `pytest -n auto --dist loadgroup`, tests of one file stay in one process, since what they share is costly to
    make; planted faults share little, take long, and are spread."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.path.parent.name != "faults":
                item.add_marker(pytest.mark.xdist_group(_shared_by(item.path)))


def _shared_by(path):
    """One wheel is built for all tests of packaging."""
    return "packaging" if path.parent.name == "packaging" else f"{path.parent.name}/{path.stem}"


@pytest.fixture(autouse=True)
def _no_ledgers_of_the_user(tmp_path_factory, monkeypatch):
    """Every test has a state folder of its own: ledgers and the local secret never touch the user's."""
    monkeypatch.setenv("PRIVKT_STATE", str(tmp_path_factory.mktemp("state")))


def _real_model(name, variable):
    """The folder of a real small model, from the environment or as a user's own command would find and keep it."""
    from privkt.runtime.models import ModelNotFound, find_model

    try:
        return find_model(name, path=os.environ.get(variable), allow_download=True)
    except ModelNotFound as error:
        if os.environ.get("CI") == "true" or variable in os.environ:
            raise
        pytest.skip(f"no {name} here: {error}")


@pytest.fixture(scope="session")
def smollm2():
    """The folder of SmolLM2-135M-Instruct; skips where it cannot be had (fails in CI)."""
    return _real_model("smollm2-135m-instruct", "PRIVKT_TEST_SMOLLM2")


@pytest.fixture(scope="session")
def minilm():
    """The folder of all-MiniLM-L6-v2; skips where it cannot be had (fails in CI)."""
    return _real_model("all-minilm-l6-v2", "PRIVKT_TEST_MINILM")


def _byte_tokenizer(folder, **special):
    """A tokenizer whose tokens are bytes: no download, and every text has ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*dict.fromkeys(special.values()), *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return fast


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """The folder of a random Llama of some 60,000 parameters over bytes, the same in every run."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = _byte_tokenizer(folder, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def wide_llama(tmp_path_factory):
    """The folder of a random two-layer Llama over bytes whose context holds several texts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "wide-llama"
    tokenizer = _byte_tokenizer(folder, eos_token="<end>", pad_token="<pad>")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, eos_token_id=0, pad_token_id=1, bos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """The folder of a random encoder over bytes, with the pooling files of a sentence-transformers model."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    tokenizer = _byte_tokenizer(folder, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        BertModel(config).save_pretrained(folder)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
