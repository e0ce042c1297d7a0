"""Loads the native module by its path, without torch, and prints its instruction set and a digest of what it computes.

Run in a process of its own: the instruction set is chosen once, and an emulated processor runs it slowly.
"""

import array
import hashlib
import importlib.util
import random
import sys
import types


def add_embeddings(native, source: random.Random, digest) -> None:
    batch, steps, width, ids = 3, 40, 547, 7
    grad = array.array("f", [source.gauss(0, 1) for _ in range(batch * steps * width)])
    drawn = [source.randrange(ids) for _ in range(batch * steps)]
    factors = array.array("f", [source.random() for _ in range(batch)])

    def lookups(order: list[int], places: list[int]) -> tuple[array.array, ...]:
        return array.array("q", [drawn[i] for i in order]), array.array("q", places)

    shape = (grad.buffer_info()[0], 0, width, steps * width, width, batch, steps, 0, 2)
    order = sorted(range(batch * steps), key=lambda i: (i // steps, drawn[i]))
    each = lookups(order, [i % steps for i in order])
    sqnorms = array.array("d", bytes(8 * batch))
    native.embedding_sqnorms_cpu((*(x.buffer_info()[0] for x in each), *shape), sqnorms.buffer_info()[0], False)
    digest.update(sqnorms)
    places = 37
    touched = array.array("f", [source.gauss(0, 1) for _ in range(batch * places * steps)])
    right = array.array("f", [source.gauss(0, 1) for _ in range(batch * places * width)])
    left_side = (touched.buffer_info()[0], 0, steps, places * steps, steps)
    right_side = (right.buffer_info()[0], 0, width, places * width, width)
    sides = (*left_side, *right_side, batch, places)
    native.tied_cross_cpu((*(x.buffer_info()[0] for x in each), *shape), *sides, sqnorms.buffer_info()[0])
    digest.update(sqnorms)
    order = sorted(range(batch * steps), key=drawn.__getitem__)
    together = lookups(order, order)
    for code, element in (("f", 0), ("d", 2), ("q", 3)):
        total = array.array(code, [1] * (ids * width))
        into = (0, batch * steps, total.buffer_info()[0], element, 2.0**40)
        sorted_at = (*(x.buffer_info()[0] for x in together), *shape)
        fits = native.clipped_embedding_sum_cpu(sorted_at, factors.buffer_info()[0], *into)
        digest.update(total)
        digest.update(bytes([fits]))


def main(path: str) -> None:
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None
    assert spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    digest = hashlib.sha256()
    source = random.Random(0)
    batch, width = 5, 4111  # a prime, beyond one block of columns
    rows = array.array("f", [source.gauss(0, 1) for _ in range(batch * width)])
    half = array.array("H", [source.getrandbits(14) for _ in range(batch * width)])
    for values, element in ((rows, 0), (half, 1)):
        sqnorms = array.array("d", bytes(8 * batch))
        factors = array.array("f", bytes(4 * batch))
        finite = array.array("B", bytes(batch))
        out = array.array("f", bytes(4 * width))
        at = [x.buffer_info()[0] for x in (values, sqnorms, factors, finite, out)]
        native.row_sqnorms_cpu(at[0], element, batch, width, width, 0, at[1], False)
        native.clip_factors_cpu(at[1], 0, batch, 1.0, width, 0.0, at[2], at[3])
        native.clipped_sum_cpu(at[0], element, batch, width, width, 0, at[2], at[4], 0, False, 1.0)
        cells = array.array("q", range(width))
        fits = native.clipped_sum_cpu(
            at[0], element, batch, width, width, 0, at[2], cells.buffer_info()[0], 3, True, 2.0**40
        )
        for x in (sqnorms, factors, finite, out, cells, bytes([fits])):
            digest.update(x)
    add_embeddings(native, source, digest)
    products(native, digest, source)
    count = 20_000
    noise, base = array.array("f", bytes(4 * count)), array.array("d", [source.gauss(0, 9) for _ in range(count)])
    for address in (0, base.buffer_info()[0]):
        native.noise_cpu(noise.buffer_info()[0], address, 2, count, 0.7, bytes(range(32)), 2**40 + 1, 2**33 + 5)
        digest.update(noise.tobytes())
    labels = array.array("q", [0, 17, -1, width - 1, 2048])
    for cap in (0.0, 2.5):
        logits, again = array.array("f", rows), array.array("f", rows)
        losses, stats = array.array("d", bytes(8 * batch)), array.array("d", bytes(16 * batch))
        at = [x.buffer_info()[0] for x in (logits, again, labels, losses, stats)]
        native.head_losses_cpu(at[0], batch, width, width, at[2], 3.0, cap, at[3], at[4], True)
        native.head_gradient_cpu(at[1], batch, width - 100, width, at[2], 3.0, cap, at[4], 50)
        for x in (logits, again, losses, stats):
            digest.update(x.tobytes())
    drawn = array.array("q", bytes(8 * 500))
    for sigma in (0.75, 2.0**20):
        native.discrete_gaussian_cpu(drawn.buffer_info()[0], 500, sigma, bytes(range(32)), 2**40 + 1, 2**33 + 5, False)
        digest.update(drawn.tobytes())
    mean = (base.buffer_info()[0], 2, 1.0, 0.7, bytes(range(32)), 3, 2**33 + 5, 7.0, False)
    half = array.array("H", bytes(2 * count))
    states = [array.array("f", [source.random() for _ in range(count)]) for _ in range(3)]
    at = [x.buffer_info()[0] for x in (half, *states)]
    native.sgd_update_cpu(at[1], 0, count, at[2], mean, 0.1, 0.9, 1.0, 0.01, True, False)
    native.adam_update_cpu(
        at[0], 1, count, at[2], at[3], mean, 0.1, 0.1, 0.999, 0.001, 0.5, 0.7, 1e-8, 0.1, 0.9, 0.01, 1e-9
    )
    for x in (half, *states):
        digest.update(x.tobytes())
    print(native.cpu_isa(), digest.hexdigest())


def products(native: types.ModuleType, digest, source: random.Random) -> None:
    """Sizes that no tile divides, steps beyond a chunk, both elements, every kind of sum."""
    batch = 2
    for steps, p, d, element in ((3, 13, 197, 0), (259, 5, 33, 0), (4, 197, 33, 1)):
        code = "fH"[element]
        draw = (lambda: source.gauss(0, 1)) if element == 0 else (lambda: 0x3C00 + source.getrandbits(10))
        left, right = (array.array(code, [draw() for _ in range(batch * steps * width)]) for width in (p, d))
        factors, norms = array.array("f", [0.5, 0.7]), array.array("d", bytes(8 * batch))
        sides = []
        for x, width in ((left, p), (right, d)):
            sides += [x.buffer_info()[0], element, width, steps * width, width]
        for gram in (True, False):
            native.product_sqnorms_cpu(*sides, batch, steps, 0, gram, norms.buffer_info()[0], False)
            digest.update(norms.tobytes())
        for out_code, out_element, scale in (("d", 2, 1.0), ("f", 0, 1.0), ("q", 3, 2.0**20)):
            out = array.array(out_code, bytes(array.array(out_code).itemsize * p * d))
            target = (factors.buffer_info()[0], out.buffer_info()[0], out_element, d, scale)
            native.clipped_product_sum_cpu(*sides, batch, steps, 0, *target)
            digest.update(out.tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
