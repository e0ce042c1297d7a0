"""Blocks of the methods' pages: how well each arm does, and what a run costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from measuring.studies import cell, names_table
from pages import Result, result, table
from privkt_knowledgesg.arms import Arm


def fdkt() -> str:
    """AG News: accuracy and macro F1 of every arm."""
    scores = result("fdkt_agnews")["table"]
    first, *others = scores
    rows = []
    for arm in scores[first]:
        row = [arm]
        for epsilon in (first, *others):
            found = scores[epsilon].get(arm)
            if found is None:
                row += ["the same", ""]
            else:
                row += [cell(found["accuracy"]), f"{found['macro_f1']['mean']:.3f}"]
        rows.append(row)
    columns = [column for epsilon in scores for column in (f"accuracy, epsilon {epsilon}", "macro F1")]
    return table(["small model trained on", *columns], rows)


def fedcot() -> str:
    """Multiple choice: accuracy of every arm, FedCoT's at each epsilon, and how many rationales were learnt from."""
    found = result("fedcot_questions")
    lengths = found["settings"]["perturbation"]["tokens"]
    tokens = lengths["question"] + 5 * lengths["choice"]
    rows: dict[str, dict[str, list[str]]] = {}
    for task, by_epsilon in found["tasks"].items():
        for epsilon, run in by_epsilon.items():
            notes = next(iter(run["arms"].values()))
            for arm, scores in run["scores"].items():
                used = notes[arm].get("rationales")
                name = f"FedCoT, {epsilon} a token, {float(epsilon) * tokens:g} a row" if arm == "FedCoT" else arm
                cells = [cell(scores["accuracy"]), str(used["used"]) if used else "-"]
                rows.setdefault(name, {})[task] = cells
    titles = {"commonsense_qa": "CommonsenseQA", "arc_easy": "ARC-Easy"}
    shown = [(task, title) for task, title in titles.items() if task in found["tasks"]]
    head = [column for _, title in shown for column in (f"{title}, accuracy", "rationales")]
    body = [[arm, *(c for task, _ in shown for c in cells.get(task, ["-", "-"]))] for arm, cells in rows.items()]
    return table(["small model trained on", *head], body)


_POST_FILES = ("post_tasks", "post_tasks_gemma")
_POST_TASKS = {"sst2": "SST-2", "agnews": "AG News"}
_POST_PHASES: dict[str, Callable[[Result], float]] = {
    "distillation, once": lambda run: run["student"]["seconds"],
    "the small model's prompt": lambda run: run["phases"]["tuning the small model's prompt"],
    "transfer": lambda run: run["transfer"]["seconds"],
    "a prompt on the large": lambda run: run["phases"]["tuning a prompt on the large model"],
}
# a step of a run, by what its title contains
_POST_STEPS = {
    "distillation": "Distilling",
    "the small model's prompt": "Tuning a prompt on the small model",
    "transfer": "Moving each prompt",
    "every prompt's scores, and a prompt on the large": "Labelling held-out texts",
}


def _post_rows() -> Iterator[tuple[list[str], Result, list[Result]]]:
    for found in map(result, _POST_FILES):
        for task, by_epsilon in found["table"].items():
            for epsilon, arms in by_epsilon.items():
                head = [found["target"], _POST_TASKS[task], "no privacy" if epsilon == "none" else epsilon]
                yield head, arms, list(found["runs"][task][epsilon].values())


def post() -> str:
    """POST with SmolLM2 and Gemma: accuracy of every arm, with its deviation over (seeds)."""
    cases = list(_post_rows())
    arms = list(cases[0][1])
    rows = [[*head, *(cell(found[arm]) for arm in arms)] for head, found, _ in cases]
    return table(["large model", "private set", "epsilon", *arms], rows)


def post_costs() -> str:
    """Seconds of each of POST's phases, and their sum, beside those of tuning on the large model itself.

    The quickest of the seeds: they do the same work, and whatever else a machine does only adds to it.
    """
    rows = []
    for head, _, runs in _post_rows():
        *own, target = (min(map(phase, runs)) for phase in _POST_PHASES.values())
        rows.append([*head, *(f"{seconds:.0f} s" for seconds in (*own, sum(own), target))])
    *own_titles, target_title = _POST_PHASES
    return table(["large model", "private set", "epsilon", *own_titles, "together", target_title], rows)


def post_memory() -> str:
    """The most memory that a process held in each of POST's steps, all weights in it.

    Of the run in which the small model was made: others found it, and ran in a process that had run before.
    """
    made = {
        head[0]: run["peaks_mib"]
        for head, _, runs in _post_rows()
        for run in runs
        if run["seconds"]["server: distil"] > 0.9 * run["student"]["seconds"]
    }
    rows = [
        [model, *(f"{_most(peaks, title) / 1024:.1f} GiB" for title in _POST_STEPS.values())]
        for model, peaks in made.items()
    ]
    return table(["large model", *_POST_STEPS], rows)


def _most(peaks: Result, title: str) -> float:
    return max(float(mib) for step, mib in peaks.items() if title in step)


_MEASURES = {
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "unparsed": "no label in the answer",
    "rouge_l": "ROUGE-L",
    "perplexity": "perplexity of the reference",
    "empty": "empty answers",
}


# The run of finance in which the professional model was shown four examples of labels in place of a rule.
_EARLIER = "finance, four examples as closing words"


def _domains() -> Result:
    found: Result = result("knowledgesg_domains", "intel-xeon-amx-2-cores")["domains"]
    return found


def _runs() -> Result:
    return {name: run for name, run in _domains().items() if "seconds" in run and name != _EARLIER}


def _knowledgesg(domain: str) -> str:
    """Every arm's scores in one domain, and how many pairs taught it."""
    found = _domains()[domain]
    taught = {Arm(arm).heading: count for arm, count in found["server"]["pairs"].items()}
    measures = [name for name in _MEASURES if name in next(iter(found["scores"].values()))]
    rows = [
        [arm, str(taught.get(arm, "-")), *(cell(scores.get(name)) for name in measures)]
        for arm, scores in found["scores"].items()
    ]
    return table(["the base model", "pairs taught", *(_MEASURES[name] for name in measures)], rows)


def knowledgesg_finance() -> str:
    """Sentiment of sentences on companies."""
    return _knowledgesg("finance")


def knowledgesg_medicine() -> str:
    """Answers to patients' questions."""
    return _knowledgesg("medicine")


def knowledgesg_labels() -> str:
    """The labels that the responses say which taught each arm, beside those of the held-out rows."""
    found = _domains()["finance"]
    server, held = found["server"], found["held_out"]
    counts = {Arm(arm).heading: (counts, server["pairs"][arm]) for arm, counts in server["labels"].items()}
    counts["held-out rows"] = held, sum(held.values())
    rows = []
    for name in (*(arm for arm in found["scores"] if arm in counts), "held-out rows"):
        of, total = counts[name]
        shares = [*(of[label] for label in held), total - sum(of.values())]
        rows.append([name, str(total), *(f"{share / total:.0%}" for share in shares)])
    return table(["labels of", "pairs or rows", *held, "none"], rows)


def knowledgesg_closings() -> str:
    """Arms that the professional model teaches, by what it was told of the labels."""
    domains, rows = _domains(), []
    said = {_EARLIER: "four examples", "finance": "a rule, with examples"}
    for arm in (Arm.SEEDS, Arm.NO_PRIVATE, Arm.KNOWLEDGESG):
        row = [arm.heading]
        for name in said:
            scores = domains[name]["scores"][arm.heading]
            row += [cell(scores[measure]) for measure in ("accuracy", "weighted_f1")]
        rows.append(row)
    return table(["taught by", *(f"{what}: {m}" for what in said.values() for m in ("accuracy", "weighted F1"))], rows)


def knowledgesg_privacy() -> str:
    """What each run's private training guarantees, and what it was accounted from."""
    rows = []
    for name, run in _runs().items():
        for one in run["trainings"]:
            accounted = (str(one["taken"]), f"{one['sampling_rate']:.3f}", f"{one['noise_multiplier']:.3f}")
            rows.append([name, *accounted, one["guarantee"]])
    return table(["", "steps taken", "sampling rate", "noise multiplier", "guarantee"], rows)


# A step of a run: what it is called here, and the beginning of its own title.
_KNOWLEDGESG_STEPS = {
    "tune": ("private training", "Fine-tuning an adapter"),
    "write": ("instructions and answers of all arms", "Writing instructions"),
    "distil": ("teaching of all served arms", "Teaching adapters"),
    "evaluate": ("scores of all arms, and the arm `private`", "Loading the adapter"),
}


def knowledgesg_costs() -> str:
    """Seconds of each step, and the most memory that the process held in it."""
    runs, rows = _runs(), []
    for step, (said, title) in _KNOWLEDGESG_STEPS.items():
        row = [said]
        for run in runs.values():
            (seconds,) = (taken for name, taken in run["seconds"].items() if name.endswith(f": {step}"))
            row += [f"{seconds:.0f} s", f"{_most(run['peaks_mib'], title) / 1024:.1f} GiB"]
        rows.append(row)
    return table(["", *(column for name in runs for column in (name, "memory"))], rows)


def knowledgesg_names() -> str:
    """Planted names that come back after each training."""
    return names_table(_domains()["medicine"]["names"])


BLOCKS: dict[str, Callable[[], str]] = {
    "fdkt": fdkt,
    "fedcot": fedcot,
    "post": post,
    "post-costs": post_costs,
    "post-memory": post_memory,
    "knowledgesg-finance": knowledgesg_finance,
    "knowledgesg-labels": knowledgesg_labels,
    "knowledgesg-closings": knowledgesg_closings,
    "knowledgesg-privacy": knowledgesg_privacy,
    "knowledgesg-medicine": knowledgesg_medicine,
    "knowledgesg-costs": knowledgesg_costs,
    "knowledgesg-names": knowledgesg_names,
}
