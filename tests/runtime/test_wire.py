"""Properties and exact cases of the wire formats."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.contracts import Adapter, Model, Outcome, SoftPrompt, Texts
from privkt.runtime import wire
from privkt.runtime.errors import WireError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]}
PROMPT = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "token_dim": 4}


@st.composite
def tables(draw):
    n = draw(st.integers(0, 7))
    column = st.lists(text, min_size=n, max_size=n).map(tuple)
    names = draw(st.sets(st.sampled_from(["answer", "question", "z_9"])))
    return Texts(draw(column), draw(st.none() | column), {name: draw(column) for name in names})


def weights(tensors, metadata=None):
    from safetensors.numpy import save

    return save({k: np.asarray(v, dtype=np.float32) for k, v in tensors.items()}, metadata)


def adapter(config=LORA, tensors=None, cls=Adapter, **files):
    tensors = {"layer.lora_A.weight": [[1.0, 2.0]]} if tensors is None else tensors
    return cls(
        {
            "adapter_config.json": json.dumps(config).encode(),
            "adapter_model.safetensors": weights(tensors),
            **files,
        }
    )


@given(tables())
def test_texts_round_trip(table):
    data = wire.encode(table, columns=["answer", "question", "z_9"])
    assert wire.decode(data) == table
    assert wire.encode(wire.decode(data), columns=table.columns) == data


@given(tables(), st.data())
def test_order_of_columns_does_not_change_the_bytes(table, data):
    turned = Texts(table.text, table.label, dict(reversed(list(table.columns.items()))))
    assert wire.encode(turned, table.columns) == wire.encode(table, table.columns)


@settings(max_examples=300)
@given(tables(), st.data())
def test_damaged_tables_are_refused_or_still_tables(table, data):
    raw = bytearray(wire.encode(table, table.columns))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(4, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        assert isinstance(wire.decode(bytes(raw)), Texts)


@given(tables(), st.integers(min_value=1))
def test_cut_and_lengthened_tables_are_refused(table, cut):
    raw = wire.encode(table, table.columns)
    for bad in (raw[: -(cut % (len(raw) - 1) + 1)], raw + b"\0", raw + raw):
        with pytest.raises(WireError):
            wire.decode(bad)


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_wire_errors(data):
    for start in (b"", b"\xff\xff\xff\xff", struct.pack("<Q", len(data))):
        with pytest.raises(WireError):
            wire.decode(start + data)


def test_undeclared_columns_do_not_cross():
    table = Texts(("a",), None, {"source_row": ("17",)})
    with pytest.raises(WireError, match="column 'source_row' may not cross, only text, label, topic"):
        wire.encode(table, columns=["topic"])
    with pytest.raises(WireError, match="column 'source_row' was not announced"):
        wire.decode(wire.encode(table, columns=["source_row"]), columns=["topic"])


@pytest.mark.parametrize(
    "table",
    [Texts(("canary \ud800",)), Texts((b"canary",)), Texts((None,)), Texts(("a",), None, {"Text ": ("canary",)})],
)
def test_what_has_no_encoding_is_refused_without_its_content(table):
    with pytest.raises(WireError) as caught:
        wire.encode(table, table.columns)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_tables_are_refused_before_they_expand(compression):
    import pyarrow as pa

    from privkt.runtime.tables import _schema

    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, _schema(["text"]), options=options) as writer:
        writer.write_batch(pa.record_batch([pa.array(["a" * 10**6])], schema=_schema(["text"])))
    with pytest.raises(WireError, match="must not be compressed"):
        wire.decode(bytes(sink.getvalue()))


def stream(schema, *batches):
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(pa.record_batch(batch, schema=schema))
    return bytes(sink.getvalue())


def test_other_schemas_are_refused():
    import pyarrow as pa

    from privkt.runtime.tables import _schema

    good = _schema(["text"])
    rows = [pa.array(["a"])]
    assert wire.decode(stream(good, rows)) == Texts(("a",))
    number = pa.schema([pa.field("text", pa.int64(), nullable=False)], metadata=good.metadata)
    for schema, batches in (
        (good.remove_metadata(), [rows]),
        (good.with_metadata({**good.metadata, b"path": b"/home"}), [rows]),
        (number, [[pa.array([1])]]),
        (pa.schema([pa.field("text", pa.utf8())], metadata=good.metadata), [[pa.array([None], pa.utf8())]]),
        (pa.schema([pa.field("label", pa.utf8(), nullable=False)], metadata=good.metadata), [rows]),
        (good, [rows, rows]),
        (good, []),
    ):
        with pytest.raises(WireError):
            wire.decode(stream(schema, *batches))


def test_invalid_utf8_is_refused_without_its_content():
    raw = wire.encode(Texts(("canary-x",)))
    with pytest.raises(WireError) as caught:
        wire.decode(raw.replace(b"canary-x", b"canary-\xff"))
    assert "canary" not in str(caught.value)


names = st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True)
arrays = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5)


@given(st.dictionaries(names, arrays, min_size=1, max_size=4), st.sampled_from([LORA, PROMPT]))
def test_adapters_round_trip(tensors, config):
    from safetensors.numpy import load

    sent = adapter(config, tensors, SoftPrompt if config is PROMPT else Adapter)
    data = wire.encode(sent)
    got = wire.decode(data)
    assert type(got) is type(sent)
    assert wire.encode(got) == data
    for name, values in load(got.files["adapter_model.safetensors"]).items():
        assert values.tolist() == tensors[name]
    assert json.loads(got.files["adapter_config.json"]).items() >= config.items()


def test_paths_readme_and_metadata_stay_behind():
    files = {
        "adapter_config.json": json.dumps(
            {**LORA, "base_model_name_or_path": "/home/canary/model", "revision": "canary", "use_dora": False}
        ).encode(),
        "adapter_model.safetensors": weights({"a": [1.0]}, {"format": "pt", "loss": "canary"}),
        "README.md": b"loss 0.17 canary",
    }
    data = wire.encode(Adapter(files))
    assert b"canary" not in data
    assert set(wire.decode(data).files) == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"trainer_log": "x"}, "setting 'trainer_log' is set and may not cross"),
        ({"init_lora_weights": "pissa"}, "setting 'init_lora_weights' must be of type init"),
        ({"target_modules": ["../../etc/passwd"]}, "setting 'target_modules' must be of type words"),
        ({"trainable_token_indices": {"a": {"b": [1]}}}, "'trainable_token_indices' must be of type tokens"),
        ({"trainable_token_indices": [-1]}, "setting 'trainable_token_indices' must be of type tokens"),
        ({"r": True}, "setting 'r' must be of type int"),
        ({"lora_alpha": 1e99}, "setting 'lora_alpha' must be of type number"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type must be LORA"),
        ({"peft_type": ["LORA"]}, "peft_type must be LORA"),
    ],
)
def test_settings_are_whitelisted_by_name_and_type(change, rule):
    wire.encode(adapter(LORA))
    with pytest.raises(WireError, match=rule):
        wire.encode(adapter({**LORA, **change}))


def test_strange_files_and_missing_files_are_refused():
    with pytest.raises(WireError, match=r"file 'training_args\.bin' may not cross"):
        wire.encode(adapter(**{"training_args.bin": b"x"}))
    with pytest.raises(WireError, match=r"file adapter_model\.safetensors is missing"):
        wire.encode(Adapter({"adapter_config.json": b"{}"}))


def raw(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(start=0, stop=4, dtype="F32", shape=(1,), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop], **more}


NOTE = {"privkt": json.dumps({"message": "adapter/1", "config": LORA})}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"a": entry()}, b"1234"),
        ({"__metadata__": {**NOTE, "path": "/home"}, "a": entry()}, b"1234"),
        ({"__metadata__": NOTE}, b""),
        ({"__metadata__": NOTE, "a": entry()}, b"12345"),
        ({"__metadata__": NOTE, "a": entry(4, 8)}, b"12345678"),
        ({"__metadata__": NOTE, "a": entry(), "b": entry()}, b"1234"),
        ({"__metadata__": NOTE, "a": entry(dtype="I8", shape=[4])}, b"1234"),
        ({"__metadata__": NOTE, "a": entry(shape=[-1])}, b"1234"),
        ({"__metadata__": NOTE, "a": entry(shape=[2**62])}, b"1234"),
        ({"__metadata__": NOTE, "../a": entry()}, b"1234"),
        ({"__metadata__": NOTE, "a": entry(extra=1)}, b"1234"),
        ({"__metadata__": NOTE, "a": None}, b"1234"),
        ({"__metadata__": {"privkt": json.dumps({"message": "adapter/2", "config": LORA})}, "a": entry()}, b"1234"),
        ({"__metadata__": {"privkt": json.dumps({"message": "adapter/1", "config": {**LORA, "revision": "x"}})},
          "a": entry()}, b"1234"),
    ],
)  # fmt: skip
def test_hostile_weights_are_refused(header, body):
    wire.decode(raw({"__metadata__": NOTE, "a": entry()}, b"1234"))
    with pytest.raises(WireError):
        wire.decode(raw(header, body))


def test_repeated_keys_and_deep_json_are_refused():
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":null}'
    for text_ in (header, b"[" * 100_000, b"[]"):
        with pytest.raises(WireError):
            wire.decode(struct.pack("<Q", len(text_)) + text_ + b"1234")


def test_bfloat16_bytes_are_kept():
    sent = adapter()
    files = {**sent.files, "adapter_model.safetensors": raw({"a": entry(0, 2, "BF16")}, b"\x80\x3f")}
    got = wire.decode(wire.encode(Adapter(files)))
    assert got.files["adapter_model.safetensors"].endswith(b"\x80\x3f")


@pytest.mark.parametrize("message", [Model("/tmp"), Outcome(), {"text": "x"}, None])
def test_what_stays_has_no_encoding(message):
    with pytest.raises(WireError, match="never crosses"):
        wire.encode(message)


def test_size_is_bounded(monkeypatch):
    data = wire.encode(Texts(("a",)))
    monkeypatch.setattr(wire, "MAX_BYTES", len(data) - 1)
    with pytest.raises(WireError, match="at most"):
        wire.decode(data)
