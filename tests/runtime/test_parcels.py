"""Several messages in one: bytes, what is refused, and what a state keeps."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from privkt.contracts import Adapter, Model, Parcel, Texts
from privkt.runtime import wire
from privkt.runtime.errors import WireError
from privkt.runtime.parcels import MARK
from privkt.runtime.state import DiskState

LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 2, "target_modules": ["q"]}


def adapter(value):
    weights = save({"q.lora_A.weight": np.full((1, 2), value, dtype=np.float32)})
    return Adapter({"adapter_config.json": json.dumps(LORA).encode(), "adapter_model.safetensors": weights})


PARCEL = Parcel({"two": adapter(2.0), "one": adapter(1.0), "texts": Texts(("a", "b"), None, {"arm": ("x", "y")})})


def test_items_come_back_as_each_would_alone():
    found = wire.decode(wire.encode(PARCEL, ["arm"]), ["arm"])
    assert set(found.items) == {"one", "two", "texts"}
    for name, item in PARCEL.items.items():
        assert wire.encode(found.items[name], ["arm"]) == wire.encode(item, ["arm"])
    assert wire.row_count(found) == 4
    assert wire.type_name(PARCEL) == "parcel"


def test_the_order_of_items_does_not_change_the_bytes():
    turned = Parcel(dict(reversed(list(PARCEL.items.items()))))
    assert wire.encode(turned, ["arm"]) == wire.encode(PARCEL, ["arm"])


def test_an_item_is_whitelisted_as_it_would_be_alone():
    with pytest.raises(WireError, match="column 'arm' may not cross"):
        wire.encode(PARCEL)


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-a", "a" * 65])
def test_names_are_plain(name):
    with pytest.raises(ValueError, match="names must be"):
        Parcel({name: Texts(())})


def test_what_cannot_cross_is_no_item(tmp_path):
    with pytest.raises(ValueError, match="must be Texts, an Adapter or a SoftPrompt, got Model"):
        Parcel({"a": Model(tmp_path)})


def made(table, body=b""):
    text = json.dumps(table).encode()
    return MARK + struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        MARK,
        MARK + struct.pack("<Q", 2**60),
        made({"a": 1}),
        made([["a", 10**9]]),
        made([["a", -1]]),
        made([["a", True]]),
        made([["../a", 0]]),
        made([["a"]]),
        made([5]),
        made([], b"rest"),
        made([["a", 40]], made([["b", 0]]) + b" " * 40),
    ],
)
def test_broken_parcels_are_refused(data):
    with pytest.raises(WireError):
        wire.decode(data)


@settings(max_examples=200)
@given(st.data())
def test_changed_bytes_are_refused_or_decode_to_something(data):
    good = bytearray(wire.encode(PARCEL, ["arm"]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(WireError):
        wire.decode(bytes(good[:cut] if data.draw(st.booleans()) else good))


def test_a_state_keeps_a_parcel_and_frees_what_it_replaces(tmp_path):
    state = DiskState(tmp_path)
    state.save("sent", PARCEL)
    again = state.load("sent")
    assert again.items["texts"] == PARCEL.items["texts"]
    assert again.items["two"].files == PARCEL.items["two"].files
    state.save("sent", Parcel({"texts": Texts(("c",))}))
    assert state.load("sent").items == {"texts": Texts(("c",))}
    assert len(list(tmp_path.iterdir())) == 2
