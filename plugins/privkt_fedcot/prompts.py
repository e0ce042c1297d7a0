"""What models are shown: a worked example and a question for rationales, a question alone for training."""

from __future__ import annotations

from privkt.contracts import ChatTurn, Prompt
from privkt.privacy import RefusedInput
from privkt_fedcot.tasks import Question, Task

STOP = ("\n\n", "\nQuestion:", "\nPassage:")
_INSTRUCTION = (
    "Think about the question, then answer it. Give the reason in one or two sentences and end with the answer."
)
_REASON = "Reason:"
# Made up for this file, so that they are in nobody's data.
_CHOICES = ("umbrella stand", "bread oven", "letter box", "guitar case", "flower bed")
_CHOICE_QUESTION = "Where should a dripping umbrella wait while its owner is in a shop?"
_CHOICE_REASON = "A dripping umbrella wets the floor, and shops keep a stand by the door to catch the water."
_PASSAGE = "Lighthouse keepers on the island were replaced by an automatic lamp in 1988. The tower is a museum now."
_YES_NO_QUESTION = "do keepers still live in the lighthouse on the island"
_YES_NO_REASON = "The passage says that an automatic lamp replaced the keepers in 1988."
_FREE_QUESTION = "What do you call the person who repairs shoes?"
_FREE_REASON = "Shoes are repaired by somebody who works with leather and soles."
_NO = ("no", "false", "0")


def worked_example(task: Task, own: str | None) -> str:
    """A public question with its rationale, as a model should write one.

    Raises: RefusedInput, for a yes-no task whose labels do not say which of them is no, without an example of its own.
    """
    if own is not None:
        return own.strip()
    kind = task.config.kind
    context = _PASSAGE if task.config.context is not None or kind == "yes-no" else None
    if kind == "multiple-choice":
        question = Question(_CHOICE_QUESTION, _CHOICES[: len(task.labels)])
        return (
            f"{question.written(task.labels)}\n{_REASON} {ending(_CHOICE_REASON, task.named(question, task.labels[0]))}"
        )
    if kind == "free-text":
        return f"{Question(_FREE_QUESTION).written(())}\n{_REASON} {ending(_FREE_REASON, 'cobbler')}"
    denials = [label for label in task.labels if label.lower() in _NO]
    if len(denials) != 1:
        raise RefusedInput(
            f"fedcot.rationale.worked: the built-in example needs one label of {', '.join(_NO)}, and data.labels has "
            f"{len(denials)}; write an example of your own"
        )
    return f"{Question(_YES_NO_QUESTION, context=context).written(())}\n{_REASON} {ending(_YES_NO_REASON, denials[0])}"


def ending(reason: str, answer: str) -> str:
    """A rationale that ends with its answer."""
    return f"{reason} So the answer is {answer}"


def rationale_prompt(question: Question, task: Task, worked: str, *, chat: bool) -> Prompt:
    """Asks for a rationale after one worked example."""
    asked = question.written(task.labels)
    if chat:
        return (
            ChatTurn("system", _INSTRUCTION),
            ChatTurn("user", f"An example:\n\n{worked}\n\nNow this one. Write the reason alone.\n\n{asked}"),
        )
    return f"{_INSTRUCTION}\n\n{worked}\n\n{asked}\n{_REASON}"


def decoding_prompt(question: Question, perturbed: Question, rationale: str, task: Task, worked: str) -> str:
    """The pair that came back as a second example, then the true question with its rationale still to write."""
    pair = f"{perturbed.written(task.labels)}\n{_REASON} {rationale}"
    return f"{_INSTRUCTION}\n\n{worked}\n\n{pair}\n\n{question.written(task.labels)}\n{_REASON}"


def answer_prompt(question: Question, task: Task) -> str:
    """The small model's first task, the only one at inference."""
    return f"[answer]\n{question.written(task.labels)}\nAnswer:"


def explain_prompt(question: Question, task: Task) -> str:
    """The small model's second task, in training only."""
    return f"[explain]\n{question.written(task.labels)}\n{_REASON}"


def encode_prompt(question: Question, task: Task) -> str:
    """A trained decoder's first task: p to p'."""
    return f"[perturb]\n{question.written(task.labels)}\nPerturbed:"


def decode_prompt(question: Question, perturbed: Question, rationale: str, task: Task) -> str:
    """A trained decoder's second task: (p', r', p) to r."""
    pair = f"{perturbed.written(task.labels)}\n{_REASON} {rationale}"
    return f"[decode]\n{pair}\n\n{question.written(task.labels)}\n{_REASON}"


def cleaned(text: str) -> str:
    """A rationale as it is kept: its first paragraph, on one line."""
    return " ".join(text.strip().split("\n\n", 1)[0].split())
