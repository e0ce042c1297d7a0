"""Loads the native module by its path, without torch, and prints its instruction set and a digest of what it computes.

Run in a process of its own: the instruction set is chosen once, and an emulated processor runs it slowly.
"""

import array
import hashlib
import importlib.util
import random
import sys


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
    count = 20_000
    noise, base = array.array("f", bytes(4 * count)), array.array("d", [source.gauss(0, 9) for _ in range(count)])
    for address in (0, base.buffer_info()[0]):
        native.noise_cpu(noise.buffer_info()[0], address, 2, count, 0.7, bytes(range(32)), 2**40 + 1, 2**33 + 5)
        digest.update(noise.tobytes())
    print(native.cpu_isa(), digest.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1])
