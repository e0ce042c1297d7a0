"""Made-up private records for the quickstart and for tests: messages to a clinic, labelled by what they are about.

A seeded grammar writes them. Every record is invented; a known share carries a planted fake name or number (a
canary), so that a run can say whether one came out. They are private only for show: the point is to see what a
real run would do with real ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LABELS = ("appointment", "prescription", "results", "billing")

_FIRST = "Orla Tobin Maelle Ruben Ilka Sefa Dario Nuala Piet Yara Corvin Anouk Lorcan Tamsin Ibolya Emeric".split()  # noqa: SIM905
_LAST = "Quaverly Brandoch Zillmere Okonjaro Velthuisen Drumcree Haskovar Pellimore Trantwick Osterfjell".split()  # noqa: SIM905

_OPENINGS = (
    "", "", "", "Hello,", "Good morning,", "Hi there,", "Dear team,", "Sorry to bother you again,", "Quick question:",
    "I hope you can help,", "Writing on behalf of my mother,", "It is urgent,", "Following up on my last message,",
)  # fmt: skip
_WHEN = (
    "on Monday", "next week", "this Friday", "tomorrow morning", "after lunch", "before the holidays",
    "at the end of March", "on the fourteenth", "as soon as possible", "since last Tuesday",
)  # fmt: skip
_DRUG = (
    "metformin", "the blood pressure tablets", "my inhaler", "amoxicillin", "the iron capsules", "sertraline",
    "the eye drops", "my thyroid pills", "the blood thinner", "the cortisone cream",
)  # fmt: skip
_TEST = (
    "blood test", "X-ray", "urine sample", "MRI scan", "allergy panel", "cholesterol check", "biopsy",
    "stress test", "ultrasound", "throat swab",
)  # fmt: skip
_DOCTOR = ("the cardiologist", "my usual doctor", "the nurse", "the dermatologist", "a female doctor", "the dentist")
_AMOUNT = ("40 euros", "a hundred and twenty", "the full fee", "85.50", "twice the usual sum", "15 per visit")

_BODIES: dict[str, tuple[str, ...]] = {
    "appointment": (
        "could I move my visit with {doctor} to another time, I cannot come {when}",
        "is there any free slot {when} to see {doctor}, mornings suit me best",
        "I need to cancel the visit booked {when} because I have to work",
        "nobody called me back about seeing {doctor}, can you give me a new date {when}",
        "how long is the waiting list for {doctor}, my knee hurts more every day",
        "please confirm whether I am expected {when} or whether the date has changed",
        "can my son come along {when}, he also needs to be seen by {doctor}",
        "I missed the call {when}, does the doctor still have time for me",
    ),
    "prescription": (
        "I am running out of {drug} and need a refill {when}, please",
        "the pharmacy says they have not received anything for {drug} yet",
        "{drug} makes me dizzy, should I take half the dose or change to something else",
        "may I take {drug} together with ibuprofen, the leaflet is not clear about it",
        "can you send the order for {drug} to the pharmacy near the station {when}",
        "I lost the paper for {drug}, is it possible to write a new one {when}",
        "the dose of {drug} was changed and I no longer know how many to take a day",
        "my daughter spat out {drug} again, is there a syrup we could have instead",
    ),
    "results": (
        "has the {test} come back yet, I was told to ask {when}",
        "I do not understand what the value in my {test} means, is it bad",
        "could {doctor} call me about the {test}, I am quite worried about it",
        "the {test} from the hospital should be with you {when}, did it arrive",
        "please send the report of the {test} to {doctor} too, she asked for it",
        "it says slightly raised on the {test}, do I have to repeat it {when}",
        "my {test} was done two weeks ago and I have still heard nothing from you",
        "where can I see the pictures of the {test} online, the link does not open",
    ),
    "billing": (
        "I was charged {amount} for the visit although the insurance should pay for it",
        "why do I get a second reminder, I have paid {amount} {when} by transfer",
        "can I pay {amount} in two parts, this month is difficult for us",
        "the invoice for the {test} shows {amount}, that cannot be right",
        "please send the receipt for {amount} again, my insurer wants the original",
        "my insurance changed {when}, where do I send the new card for the invoice",
        "who do I talk to about {amount} on my account, I never came that day",
        "there is a fee of {amount} for {drug} on the bill that nobody told me about",
    ),
}
# What makes the task less than trivial: a second topic mentioned in passing.
_ASIDES = (
    "by the way the {test} went fine", "I still take {drug}", "I will be there {when} anyway",
    "I have already paid {amount}", "{doctor} knows about it", "my number has not changed",
)  # fmt: skip


@dataclass(frozen=True)
class SampleRecords:
    """Records and the canaries planted in them.

    Shapes: text, label: n strings; canaries: the planted names and numbers, each of which occurs in exactly one
    record.
    """

    text: tuple[str, ...]
    label: tuple[str, ...]
    canaries: tuple[str, ...]


def sample_records(size: int, seed: int = 0, canary_share: float = 0.1, noise: float = 0.05) -> SampleRecords:
    """`size` made-up clinic messages; the same seed gives the same records.

    `noise`: share of records whose label is drawn anew, as hurried clerks do. `canary_share`: share of records with a
    planted name or number.
    """
    if size < 1:
        raise ValueError(f"sample_records: size must be at least 1, got {size}")
    rng = random.Random(f"privkt sample records {seed}")
    texts, labels, canaries = [], [], []
    planted: set[str] = set()
    for i in range(size):
        label = LABELS[i % len(LABELS)]
        slots = {
            "when": rng.choice(_WHEN), "drug": rng.choice(_DRUG), "test": rng.choice(_TEST),
            "doctor": rng.choice(_DOCTOR), "amount": rng.choice(_AMOUNT),
        }  # fmt: skip
        parts = [rng.choice(_OPENINGS), rng.choice(_BODIES[label]).format(**slots)]
        if rng.random() < 0.45:
            parts.append("and " + rng.choice(_ASIDES).format(**slots))
        text = " ".join(part for part in parts if part) + rng.choice((".", ".", "?", "!"))
        if rng.random() < canary_share:
            canary = _new_canary(rng, planted)
            canaries.append(canary)
            text = (f"{canary} here. " if canary[0].isalpha() else f"File {canary}: ") + text
        texts.append(text[0].upper() + text[1:])
        labels.append(rng.choice(LABELS) if rng.random() < noise else label)
    order = list(range(size))
    rng.shuffle(order)
    return SampleRecords(tuple(texts[i] for i in order), tuple(labels[i] for i in order), tuple(canaries))


def _new_canary(rng: random.Random, planted: set[str]) -> str:
    while True:
        if rng.random() < 0.6:
            canary = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}-{rng.choice(_LAST)}"
        else:
            canary = f"{rng.randrange(1000, 9999)}-{rng.randrange(10**5, 10**6)}"
        if canary not in planted:
            planted.add(canary)
            return canary
