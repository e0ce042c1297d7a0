"""The sharpest law whose certificate stays within an epsilon."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from privkt.privacy import Certificate, RefusedInput
from privkt_mechanisms.exact import epsilon_of
from privkt_mechanisms.laws import Law

CALIBRATIONS = ("exact", "range")
_CLOSE = 0.002  # of epsilon that may be left unused
_TRIALS = 10


def asked(
    subject: str, epsilon: Fraction | float | str, calibrate: str, known: tuple[str, ...] = CALIBRATIONS
) -> float:
    """The epsilon as a float that is not above what was asked.

    Raises: RefusedInput, for an epsilon or a calibration that is none.
    """
    exact = epsilon_of(subject, epsilon)
    if calibrate not in known:
        raise RefusedInput(
            f"{subject}: calibrate must be one of {', '.join(known)}, got {calibrate!r}; name one of them"
        )
    near = float(exact)
    return near if Fraction(near) <= exact else math.nextafter(near, 0.0)


def certificate_of(law: Law, *, enumerate_law: bool, bounded_range: bool) -> Certificate:
    """Both certificates of a law, the exact one only where it is asked for."""
    return Certificate(law.epsilon_range, law.epsilon_exact() if enumerate_law else None, bounded_range)


def sharpest(
    subject: str, make: Callable[[float], Law], epsilon: float, *, exactly: bool, bounded_range: bool
) -> tuple[float, Law, Certificate]:
    """(sharpness, law, certificate) with certificate.epsilon <= epsilon, the sharpest found.

    `make(s)` has an epsilon_range of at most s. The search trusts nothing but the certificate of the law that it keeps:
    whether epsilon rises with sharpness decides how near it comes, never whether it holds.
    Raises: RefusedInput, where even the law of sharpness epsilon is too much for the weights' bits.
    """
    low = epsilon * (1 - 1e-12)
    law = make(low)
    best = low, law, certificate_of(law, enumerate_law=exactly, bounded_range=bounded_range)
    if best[2].epsilon > epsilon:
        raise RefusedInput(f"{subject}: its certificate must be at most {epsilon}, got {best[2].epsilon}; ask for more")
    high = math.inf
    for _ in range(_TRIALS if exactly else 0):
        cost = best[2].epsilon
        if cost <= 0 or epsilon - cost <= _CLOSE * epsilon:
            break
        sharper = low * min(4.0, epsilon / cost * (1 - _CLOSE / 4))
        if sharper >= high:
            sharper = (low + high) / 2
        try:
            law = make(sharper)
        except RefusedInput:
            high = sharper
            continue
        certificate = certificate_of(law, enumerate_law=True, bounded_range=bounded_range)
        if certificate.epsilon <= epsilon:
            low, best = sharper, (sharper, law, certificate)
        else:
            high = sharper
    return best
