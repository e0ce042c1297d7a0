"""Sites made of small stand-ins for models, so that the protocol can be followed step by step without one."""

import sys
from pathlib import Path

import pytest

from privkt.contracts import ClientSite, PrivateData, PublicFacts, ServerSite
from privkt.privacy import Budget

sys.path.insert(0, str(Path(__file__).parent))  # the stand-ins are imported by name

from fdkt_fakes import LABELS, TEMPLATE, Fake, Generator, Large, MemoryState, Small, rows


@pytest.fixture
def fakes():
    """The stand-ins by name."""
    return {"generator": Generator, "llm": Large, "slm": Small, "embedder": Fake}


@pytest.fixture
def template_block():
    """A custom template for the two labels."""
    return dict(TEMPLATE)


@pytest.fixture
def make_client(tmp_path, fakes):
    """Makes a client's site; `seed`, `name`, `size` and further `models` can be given."""

    def make(seed=0, name="a", size=40, state=None, models=None, public=False, private=None):
        private = private or rows(0, size)
        return ClientSite(
            models={"generator": fakes["generator"](), "slm": fakes["slm"](), **(models or {})},
            state=MemoryState() if state is None else state,
            folder=tmp_path / f"{name}-{seed}",
            seed=seed,
            id=name,
            data=PrivateData(name, size, LABELS, lambda: private, public=public),
            budget=Budget(8.0, 1e-5),
            run_id="run",
            data_set_id="id",
            evaluation=lambda: rows(10_000, 30),
        )

    return make


@pytest.fixture
def make_server(tmp_path, fakes):
    """Makes the server's site for clients by name."""

    def make(*names, seed=0, llm=None, embedder=None):
        models = {"llm": llm or fakes["llm"](), **({"embedder": embedder} if embedder else {})}
        return ServerSite(
            models=models,
            state=MemoryState(),
            folder=tmp_path / f"server-{seed}",
            seed=seed,
            clients={name: PublicFacts(name, 40, LABELS) for name in names},
        )

    return make


@pytest.fixture(scope="session")
def wide_llama(tmp_path_factory):
    """The folder of a random two-layer Llama over bytes whose context holds a cluster of texts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "wide-llama"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<end>", "<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, eos_token_id=0, pad_token_id=1, bos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
