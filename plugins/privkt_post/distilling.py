"""Step 1: the large model becomes a small one, once for each content, from public texts alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from privkt.contracts import Progress
from privkt.synthesis.quiet import quiet_transformers
from privkt_post import loops
from privkt_post.config import DistillationConfig
from privkt_post.corpus import IGNORED, Corpus, make_corpus
from privkt_post.families import chosen_layers, head_parameters, shrunk
from privkt_post.losses import direction_loss, kept_divergence
from privkt_post.networks import Net, open_net, parameters_of, pick_dtype
from privkt_post.store import StudentStore, digest_of, student_name
from privkt_post.teacher import TeacherCache

VERSION = 1


def distil(
    net: Net, public_name: str, texts: Sequence[str], config: DistillationConfig, progress: Progress
) -> tuple[str, dict[str, Any]]:
    """(name, card) of the student of a model, made if nobody made it before.

    Guarantee: the name is a hash of the large model's files, the corpus and every setting that counts, so that equal
        students are one. Nothing private is used.
    """
    kept = chosen_layers(config, int(net.config.num_hidden_layers))
    corpus = make_corpus(
        net, texts, length=config.length, pack=config.pack, masked_share=config.masked_share, seed=config.seed
    )
    store = StudentStore(config.store)
    precision = "bfloat16" if pick_dtype(config.precision, net.device) == torch.bfloat16 else "float32"
    config = config.model_copy(update={"precision": precision})
    counted = config.model_dump(mode="json", exclude={"store", "corpus", "first", "last"}) | {"layers": list(kept)}
    source = f"{digest_of(net.folder)} in {net.network.dtype}"  # what it says of a corpus depends on its precision
    name = student_name(VERSION, source, corpus.digest, counted)

    def make(place: Path, work: Path) -> dict[str, Any]:
        begun = time.monotonic()
        k = min(config.top_k, int(net.network.get_output_embeddings().weight.shape[0]))
        told = student_name(VERSION, source, corpus.digest, k, config.temperature)
        cache = TeacherCache(store.folder / "teachers" / told, corpus, net.width, k)
        if config.epochs:
            cache.fill(net, corpus, config.temperature, progress)
        asked = time.monotonic() - begun
        small = shrunk(net, kept, untie=config.untie).to(net.device)
        losses = _learn(replace(net, network=small), corpus, cache, config, name, work / "student.pt", progress)
        with quiet_transformers():
            small.save_pretrained(place)
            net.tokenizer.save_pretrained(place)
        return {
            "name": name,
            "from": public_name,
            "layers": list(kept),
            "parameters": parameters_of(small),
            "parameters_of_large": parameters_of(net.network),
            "sequences": len(corpus),
            "steps": len(losses),
            "first_loss": losses[0] if losses else None,
            "last_loss": sum(losses[-10:]) / len(losses[-10:]) if losses else None,
            "seconds_asking": round(asked, 1),
            "seconds": round(time.monotonic() - begun, 1),
        }

    store.publish(name, make)
    return name, store.card(name)


def published(folder: Path, public_name: str, store: StudentStore) -> tuple[str, dict[str, Any]]:
    """(name, card) of a small model that the provider has already, in the store like a distilled one."""
    import shutil

    name = student_name(VERSION, digest_of(folder))

    def make(place: Path, work: Path) -> dict[str, Any]:
        for file in folder.iterdir():
            if file.is_file():
                shutil.copyfile(file, place / file.name)
        size = parameters_of(open_net(place, {"device": "cpu"}).network)
        return {"name": name, "from": public_name, "parameters": size, "steps": 0, "seconds": 0.0}

    store.publish(name, make)
    return name, store.card(name)


def distillation_losses(
    net: Net, corpus: Corpus, cache: TeacherCache, indices: list[int], config: DistillationConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ce, lm, cosine) of some sequences, each a mean over the places that count.

    `ce` and `cosine` count every place that is not padding; `lm` the family's own: the next token, or the masked ones.
    """
    ids, labels, mask = corpus.batch(indices, net.device)
    top, logs, rest, states = cache.batch(indices, net.device)
    hidden = net.hidden(net.embed(ids), mask)
    here = mask.bool()
    scores = net.scores(hidden[here])
    ce = kept_divergence(top[here], logs[here], rest[here], scores, config.temperature).mean()
    if net.masked:
        wanted = labels[here]
    else:
        following = torch.full_like(labels, IGNORED)
        following[:, :-1] = labels[:, 1:]
        wanted = following[here]
    counted = (wanted != IGNORED).sum().clamp(min=1)
    lm = F.cross_entropy(scores, wanted, ignore_index=IGNORED, reduction="sum") / counted
    return ce, lm, direction_loss(states[here], hidden[here]).mean()


def _learn(
    student: Net,
    corpus: Corpus,
    cache: TeacherCache,
    config: DistillationConfig,
    name: str,
    checkpoint: Path,
    progress: Progress,
) -> list[float]:
    batch = min(config.batch_size, len(corpus))
    steps = max(round(config.epochs * len(corpus) / batch), int(config.epochs > 0))
    if not steps:
        return []
    student.network.requires_grad_(True)
    for parameter in head_parameters(student.network, student.masked):
        parameter.requires_grad_(False)
    course = loops.Course(
        steps, config.learning_rate, betas=(0.9, 0.98), optimizer="adamw", schedule="linear", warmup=config.warmup,
        clip=config.clip, weight_decay=0.01,
    )  # fmt: skip

    mixed = config.precision == "bfloat16"

    def backward(step: int) -> float:
        indices = loops.order(len(corpus), batch, step, config.seed)
        with torch.enable_grad(), torch.autocast(student.device.type, torch.bfloat16, enabled=mixed):
            ce, lm, cosine = distillation_losses(student, corpus, cache, indices, config)
            loss = config.ce * ce + config.lm * lm + config.cosine * cosine
        loss.backward()
        return float(loss.detach())

    def flat(losses: list[float]) -> bool:
        window = config.flat_window
        if not window or len(losses) < 2 * window or len(losses) % window:
            return False
        before, now = sum(losses[-2 * window : -window]), sum(losses[-window:])
        return now > before * (1 - config.flat_tolerance)

    trained = {n: p for n, p in student.network.named_parameters() if p.requires_grad}
    task = progress.task("distilling the small model", steps, "steps")
    try:
        return loops.run(
            trained, backward, course, checkpoint=checkpoint, identity=name, task=task, stop=flat, every=120.0
        )
    finally:
        student.network.requires_grad_(False)
