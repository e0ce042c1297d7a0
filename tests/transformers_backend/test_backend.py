"""The contract's suite on a tiny Llama, and what this backend refuses before it loads anything."""

import json
import subprocess
import sys

import pytest
from privkt_transformers.backend import TransformersBackend

from privkt.contracts import BackendContext, Capability, CapabilityMissing, Example, Recipe, Sampling
from privkt.privacy import RefusedInput
from privkt.testing import BackendSuite


class TestContract(BackendSuite):
    name = "transformers"
    expected = frozenset(Capability)
    batch_option = "batch_tokens"

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_llama):
        type(self).folder = str(tiny_llama)

    def options(self):
        return {"model": self.folder, "dtype": "float32"}

    def bad_options(self):
        return {
            "no folder": ({"model": "/nowhere/at-all"}, "there is no such folder"),
            "misspelt": ({"batch_token": 5}, "did you mean 'batch_tokens'?"),
            "bad dtype": ({"dtype": "int3"}, "dtype"),
            "bad device": ({"device": "abacus"}, "device"),
            "bad lora": ({"lora": {"rank": 0}}, "lora.rank"),
            "misspelt lora": ({"lora": {"rnak": 4}}, "did you mean 'rank'?"),
        }


def make(model, **options):
    return TransformersBackend({"model": str(model), **options}, BackendContext(role="slm"))


def test_the_weights_of_a_model_lie_in_its_folder(tiny_llama, tmp_path):
    from privkt.contracts import Model

    backend = make(tiny_llama)
    assert backend.weights_folder() == tiny_llama
    assert backend.with_weights(Model(tmp_path)).weights_folder() == tmp_path


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RefusedInput, match=r"has no config\.json"):
        make(tmp_path).check()


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\udce9"])
def test_a_malformed_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RefusedInput, match=r"config\.json must be"):
        make(tmp_path).check()


def test_a_folder_without_weights_is_refused(tmp_path, tiny_llama):
    (tmp_path / "config.json").write_text((tiny_llama / "config.json").read_text())
    with pytest.raises(RefusedInput, match="must hold weights"):
        make(tmp_path).check()


def test_an_encoder_decoder_is_refused(tmp_path):
    config = {"model_type": "t5", "is_encoder_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RefusedInput, match="encoder-decoder"):
        make(tmp_path).check()


def test_a_hub_id_that_cannot_be_had_says_where_it_was_sought(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RefusedInput, match="not in the Hugging Face cache") as caught:
        make("someone/some-model-nobody-has").check()
    assert "smollm2-135m-instruct" in str(caught.value)


def test_the_name_is_the_folders_last_part_or_the_hub_id(tiny_llama, tmp_path):
    assert make(tiny_llama).name == "tiny-llama"
    assert make("someone/some-model").name == "someone/some-model"
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert make(snapshot).name == "org/name"


def test_an_encoder_does_not_write(bert):
    assert not bert().probe() & {Capability.GENERATE, Capability.SCORE, Capability.CHAT}
    with pytest.raises(CapabilityMissing, match="is an encoder"):
        bert().generate(["a"], Sampling())
    with pytest.raises(CapabilityMissing, match="is an encoder"):
        bert().score(["a"], ["b"])


def test_an_encoder_is_not_trained_on_next_tokens(bert, tmp_path):
    with pytest.raises(CapabilityMissing, match="cannot train next tokens"):
        bert().train([Example("a", "b")], Recipe(), folder=tmp_path)


def test_weights_are_shared_between_roles_and_freed_by_the_last(llama):
    from privkt_transformers import loading

    first, second = llama(), llama()
    assert first.loaded.network is second.loaded.network
    key = next(k for k, v in loading._in_memory.items() if v.network is first.loaded.network)
    network = first.loaded.network
    first.release_memory()
    assert second.loaded.network is network
    loading._users[key].discard(first)
    for user in list(loading._users[key]):
        user.release_memory()
    assert key not in loading._in_memory


def test_making_and_checking_a_backend_imports_no_torch(tiny_llama):
    code = (
        "import sys; from privkt.contracts import BackendContext\n"
        "from privkt_transformers.backend import TransformersBackend\n"
        f"b = TransformersBackend({{'model': {str(tiny_llama)!r}}}, BackendContext()); b.check(); b.name\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
