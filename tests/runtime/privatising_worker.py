"""Privatises a file slowly, one text at a time; run as a process that may be killed at any moment."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "synthesis"))  # the toy mechanism lives beside its own tests
from toy_tokens import Toy, vocabulary

from privkt.runtime.privatisation import Account, PrivateTexts
from privkt.synthesis.privatiser import TextPrivatiser


class Slow(Toy):
    """Takes its time, so that there is a middle to be killed in."""

    def sample_ids(self, ids):
        time.sleep(0.02)
        return super().sample_ids(ids)


def main(file, output):
    words = vocabulary()
    privatiser = TextPrivatiser(words, Slow(words.vectors, 2.0), k_max=5)
    PrivateTexts(file, Account("notes")).privatise(privatiser, output, batch_size=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
