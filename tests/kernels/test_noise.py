"""Noise: published vectors, addressing, and agreement in every bit with the decimal reference."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privkt.kernels import (
    add_gaussian_noise_,
    chacha20_block,
    gaussian_noise,
    gaussian_tv_per_coordinate,
    native,
    new_key,
    noisy_sum,
)
from privkt.kernels.reference_noise import exact_value, normals_added

KEY = bytes(range(32))
LAST = 2**64 - 1
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

# RFC 8439: section 2.3.2, then appendix A.1, test vectors 1 to 5.
RFC_8439 = [
    (
        KEY,
        1,
        "000000090000004a00000000",
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    (
        bytes(32),
        0,
        "00" * 12,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        bytes(32),
        1,
        "00" * 12,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        bytes(31) + b"\x01",
        1,
        "00" * 12,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        b"\x00\xff" + bytes(30),
        2,
        "00" * 12,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
    (
        bytes(32),
        0,
        "00" * 11 + "02",
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
        "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    ),
]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(("key", "counter", "nonce", "stream"), RFC_8439)
def test_published_vectors(key: bytes, counter: int, nonce: str, stream: str) -> None:
    assert chacha20_block(key, counter, bytes.fromhex(nonce)).hex() == stream


@pytest.mark.usefixtures("implementation")
@settings(SHARED, max_examples=60)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, LAST), st.integers(0, LAST - 700))
def test_a_slice_at_its_offset_is_the_slice_of_the_whole(start: int, count: int, step: int, offset: int) -> None:
    whole = gaussian_noise(torch.empty(700), 1.5, KEY, step, offset)
    part = gaussian_noise(torch.empty(count), 1.5, KEY, step, offset + start)
    assert torch.equal(part, whole[start : start + count])


@settings(SHARED, max_examples=60)
@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, LAST),
    st.integers(0, LAST - 1000),
    st.floats(2.0**-100, 2.0**100),
    st.sampled_from([0.0, 1e-6, 1.0, 1e5]),
)
def test_native_noise_has_the_bits_of_the_reference(
    key: bytes, step: int, offset: int, sigma: float, ratio: float
) -> None:
    base = np.random.default_rng(0).standard_normal(1000) * sigma * ratio
    got = noisy_sum(torch.from_numpy(base), sigma, key, step, offset).numpy()
    assert got.tobytes() == normals_added(base, sigma, key, step, offset).tobytes()


def test_a_long_stretch_has_the_bits_of_the_reference() -> None:
    """300,000 coordinates: about ten of them take each implementation's exact path."""
    got = gaussian_noise(torch.empty(300_000), 0.83, KEY, 7).numpy()
    assert got.tobytes() == normals_added(np.zeros(300_000), 0.83, KEY, 7, 0).tobytes()


def test_every_value_is_the_rounding_of_the_exact_one() -> None:
    base = np.random.default_rng(1).standard_normal(300)
    got = noisy_sum(torch.from_numpy(base), 0.9, KEY, 3, 12345).numpy()
    exact = [exact_value(KEY, 3, 12345 + i, float(base[i]), 0.9) for i in range(300)]
    assert got.tobytes() == np.array(exact, np.float32).tobytes()


@pytest.mark.usefixtures("implementation")
def test_noise_in_place_is_noise_on_the_sum() -> None:
    x = torch.linspace(-3, 3, 1001)
    expected = noisy_sum(x, 0.5, KEY, 1, 9)
    assert expected.dtype == torch.float32
    assert torch.equal(noisy_sum(x.double(), 0.5, KEY, 1, 9), expected)
    assert add_gaussian_noise_(x, 0.5, KEY, 1, 9) is x
    assert torch.equal(x, expected)


@pytest.mark.usefixtures("implementation")
def test_no_noise_with_sigma_zero_and_no_change_to_what_is_not_finite() -> None:
    assert gaussian_noise(torch.full((3,), 5.0), 0.0, KEY, 0).tolist() == [0.0, 0.0, 0.0]
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0])
    add_gaussian_noise_(x, 1.0, KEY, 0)
    assert x[:2].tolist() == [torch.inf, -torch.inf]
    assert x[2].isnan()
    assert x[3].isfinite()
    assert gaussian_noise(torch.empty(0), 1.0, KEY, 0).shape == (0,)


@pytest.mark.usefixtures("implementation")
def test_another_key_or_step_is_other_noise() -> None:
    streams = [
        gaussian_noise(torch.empty(64), 1.0, key, step)
        for key, step in ((KEY, 0), (KEY, 1), (KEY, 2**32), (KEY, 2**63), (bytes(32), 0))
    ]
    assert len({z for stream in streams for z in stream.tolist()}) == 5 * 64


def test_keys_are_fresh() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}


def test_the_number_added_to_delta_is_the_one_that_the_native_bound_derives() -> None:
    assert gaussian_tv_per_coordinate() == native.module().GAUSSIAN_TV == 2.0**-64


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gaussian_noise(torch.empty(2), -1.0, KEY, 0),
            "gaussian_noise: sigma must be 0 or between 2^-100 and 2^100, got -1.0; rescale the gradients",
        ),
        (
            lambda: gaussian_noise(torch.empty(2), float("nan"), KEY, 0),
            "gaussian_noise: sigma must be 0 or between 2^-100 and 2^100, got nan; rescale the gradients",
        ),
        (
            lambda: gaussian_noise(torch.empty(2), 1.0, KEY[:31], 0),
            "noise key: must have 32 bytes, got 31; make one with new_key()",
        ),
        (
            lambda: gaussian_noise(torch.empty(2), 1.0, "secret", 0),  # type: ignore[arg-type]
            "noise key: must be 32 bytes, got str; make one with new_key()",
        ),
        (
            lambda: gaussian_noise(torch.empty(2), 1.0, KEY, -1),
            "gaussian_noise: step must be in [0, 2^64), got -1; use a new key before it runs out",
        ),
        (
            lambda: gaussian_noise(torch.empty(2), 1.0, KEY, 0, LAST),
            f"gaussian_noise: offset + n must be at most 2^64, got {LAST} + 2; use the next step",
        ),
        (
            lambda: add_gaussian_noise_(torch.zeros(2, dtype=torch.bfloat16), 1.0, KEY, 0),
            "add_gaussian_noise_: x must be float32, got bfloat16; convert it before the call",
        ),
        (
            lambda: noisy_sum(torch.zeros(2, 2), 1.0, KEY, 0),
            "noisy_sum: total must have shape [n], got [2, 2]; reshape it before the call",
        ),
        (
            lambda: chacha20_block(KEY, 2**32, bytes(12)),
            "chacha20_block: counter must be in [0, 2^32), got 4294967296; see RFC 8439, 2.3",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message
