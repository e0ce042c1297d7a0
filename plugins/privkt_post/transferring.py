"""Step 3: the small model's prompt becomes one of the large model, on public texts, without labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privkt.contracts import Progress
from privkt_post import loops
from privkt_post.config import TransferConfig
from privkt_post.inputs import Row, collate, read, scores_at
from privkt_post.losses import transfer_losses
from privkt_post.matching import Match, embedding_map
from privkt_post.networks import Net
from privkt_post.store import digest_of, student_name

_TOKENS_AT_ONCE = {"cpu": 2048}
_TOKENS_ELSEWHERE = 16_384
VARIANT_ALPHAS = {"output": 0.0, "shift": 1.0}


@dataclass(frozen=True, eq=False)
class Pair:
    """The two models with the same public texts as rows of each, and the tokens that both are compared over.

    `calibrated`: each of the three terms is compared less its own mean over these texts, and the scores that move less
        the large model's mean without a prompt. Whoever reads the moved prompt takes the balance behind it off anew, so
        the loss need not match it.
    """

    small: Net
    large: Net
    small_rows: tuple[Row, ...]
    large_rows: tuple[Row, ...]
    match: Match
    calibrated: bool = False

    def some(self, indices: Sequence[int]) -> Pair:
        """The texts with these indices."""
        return Pair(
            self.small,
            self.large,
            tuple(self.small_rows[i] for i in indices),
            tuple(self.large_rows[i] for i in indices),
            self.match,
            self.calibrated,
        )


class TeacherTerms:
    """What does not move during a transfer, computed once for every public text, on disk.

    Shapes: [3, p, m]: scores of the matched tokens at every place read: of the small model behind its prompt, of the
        small model without, of the large one without.
    Guarantee: no gradient is recorded. `about` changes with the prompt, any text, the tokens compared and the models.
    """

    def __init__(self, folder: Path, pair: Pair, prompt: Tensor, progress: Progress) -> None:
        self._means: Tensor | None = None
        self.starts = np.concatenate([[0], np.cumsum([len(row.places) for row in pair.large_rows])])
        shape = (3, int(self.starts[-1]), len(pair.match.small))
        folder.mkdir(parents=True, exist_ok=True)
        file, done = folder / "terms.npy", folder / "terms.json"
        rows = [(row.ids, row.places) for row in (*pair.small_rows, *pair.large_rows)]
        compared = (pair.match.kind, list(map(int, pair.match.small)), list(map(int, pair.match.large)))
        models = [f"{digest_of(net.folder)} in {net.network.dtype}" for net in (pair.small, pair.large)]
        self.about = student_name(prompt.tolist(), rows, shape, compared, models)
        if done.is_file() and json.loads(done.read_text()) == self.about:
            self._terms = np.load(file, mmap_mode="r")
            return
        terms = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        task = progress.task("reading the public texts", 3 * len(rows) // 2, "texts")
        for term, (net, own, with_prompt) in enumerate(
            (
                (pair.small, pair.small_rows, prompt),
                (pair.small, pair.small_rows, None),
                (pair.large, pair.large_rows, None),
            )
        ):
            place = 0
            for part, scores in read(net, own, None if with_prompt is None else with_prompt.to(net.device)):
                kept = (pair.match.of_large if net is pair.large and term == 2 else pair.match.of_small)(scores)
                terms[term, place : place + len(kept)] = kept.cpu().numpy()
                place += len(kept)
                task.advance(len(part))
        terms.flush()
        done.write_text(json.dumps(self.about))
        self._terms = terms

    def of(self, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The three terms at all places of some texts, in order."""
        places = [p for i in indices for p in range(self.starts[i], self.starts[i + 1])]
        found = torch.from_numpy(np.array(self._terms[:, places])).to(device)
        return found[0], found[1], found[2]

    def means(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of each term over all places; [m] each."""
        if self._means is None:
            self._means = torch.from_numpy(np.array(self._terms, dtype=np.float64).mean(1)).float()
        found = self._means.to(device)
        return found[0], found[1], found[2]


def text_losses(
    pair: Pair, terms: TeacherTerms, indices: Sequence[int], prompt: Tensor, alpha: float, t: float
) -> Tensor:
    """Each text's loss, summed over its places; [b]."""
    part = pair.some(indices)
    batch = collate(pair.large, part.large_rows)
    own = pair.match.of_large(scores_at(pair.large, batch, prompt))
    small_with, small_without, large_without = terms.of(indices, pair.large.device)
    if pair.calibrated:
        with_mean, without_mean, large_mean = terms.means(pair.large.device)
        small_with, small_without = small_with - with_mean, small_without - without_mean
        own, large_without = own - large_mean, large_without - large_mean
    each = transfer_losses(small_with, small_without, own, large_without, alpha=alpha, temperature=t)
    return each.new_zeros(len(indices)).index_add(0, batch.owners, each)


def transfer(
    pair: Pair,
    prompt: Tensor,
    start: Tensor,
    config: TransferConfig,
    alpha: float,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
) -> tuple[Tensor, list[float]]:
    """(the large model's prompt, the loss of every step); [n, d].

    `prompt`: the released one, which stays as it is; `start`: the large model's own first rows.
    Guarantee: public texts and the released prompt are all it sees. The last step is kept: no step is chosen.
    References: Wang et al. 2025, Algorithm 1.
    """
    terms = TeacherTerms(folder, pair, prompt, progress)
    moved = torch.nn.Parameter(start.detach().clone().to(pair.large.device, torch.float32))
    size = len(pair.large_rows)
    batch = min(config.batch_size, size)
    limit = _TOKENS_AT_ONCE.get(pair.large.device.type, _TOKENS_ELSEWHERE)

    def backward(step: int) -> float:
        chosen = sorted(loops.order(size, batch, step, seed), key=lambda i: len(pair.large_rows[i].ids))
        piece = max(1, limit // (len(pair.large_rows[chosen[-1]].ids) + len(start)))
        total = 0.0
        with torch.enable_grad():
            for first in range(0, batch, piece):
                losses = text_losses(pair, terms, chosen[first : first + piece], moved, alpha, config.temperature)
                loss = losses.sum() / batch
                loss.backward()
                total += float(loss.detach())
        return total

    course = loops.Course(config.steps, config.learning_rate)
    losses = loops.run(
        {"prompt": moved},
        backward,
        course,
        checkpoint=folder / "transfer.pt",
        identity=student_name(
            config.model_dump(mode="json", exclude={"public"}), alpha, seed, terms.about, pair.calibrated
        ),
        task=progress.task("moving the prompt to the large model", config.steps, "steps"),
    )
    return moved.detach().cpu(), losses


def mapped_start(pair: Pair, prompt: Tensor) -> Tensor:
    """The small model's prompt through a linear map of embeddings: a first prompt for a model of another width."""
    weight, bias = embedding_map(pair.small, pair.large, pair.match)
    return prompt.cpu() @ weight + bias


def fitted_alpha(zero_shot: float, tuned: float, chance: float) -> float:
    """How much the shift counts: min((ZS - chance) / (C - chance), 1), never below 0.

    Edge cases: a large model no better than chance gives 0; a small one no better than chance, beside a better large
        one, gives 1.
    References: Wang et al. 2025, Section 5.
    """
    if zero_shot <= chance:
        return 0.0
    if tuned <= chance:
        return 1.0
    return min((zero_shot - chance) / (tuned - chance), 1.0)
