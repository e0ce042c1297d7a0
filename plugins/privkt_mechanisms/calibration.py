"""The sharpest law whose certificate stays within an epsilon."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from privkt.privacy import Certificate, RefusedInput
from privkt_mechanisms.exact import epsilon_of
from privkt_mechanisms.laws import Law

CALIBRATIONS = ("exact", "range")
_CLOSE = 0.004  # of epsilon that may be left unused
_TRIALS = 8
_FIRST, _MOST_STEP = 1.75, 4.0  # vectors of words and tokens use 0.55 to 0.65 of their range


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
    sharpness = epsilon * (1 - 1e-12)  # what a law rounds up stays within epsilon
    law = make(sharpness)
    best = sharpness, law, Certificate(law.epsilon_range, None, bounded_range)
    if best[2].epsilon > epsilon:
        raise RefusedInput(f"{subject}: its certificate must be at most {epsilon}, got {best[2].epsilon}; ask for more")
    if not exactly:
        return best
    if best[2].epsilon == 0:  # one weight alone: there is nothing to enumerate
        return best[0], best[1], Certificate(0.0, 0.0, bounded_range)
    # (sharpness, epsilon) on either side of what was asked, and of the low side the one before
    lower, low, high = (0.0, 0.0), (0.0, 0.0), (math.inf, math.inf)
    for trial in range(_TRIALS):
        sharpness = _FIRST * epsilon if trial == 0 else _between(lower, low, high, epsilon)
        if sharpness <= best[0]:
            break
        try:
            law = make(sharpness)
        except RefusedInput:  # sharper than the weights' bits hold
            high = (sharpness, math.inf)
            continue
        certificate = Certificate(law.epsilon_range, law.epsilon_exact(), bounded_range)
        if certificate.epsilon <= epsilon:
            lower, low, best = low, (sharpness, certificate.epsilon), (sharpness, law, certificate)
            if epsilon - certificate.epsilon <= _CLOSE * epsilon:
                break
        else:
            high = (sharpness, certificate.epsilon)
    if best[2].epsilon_exact is None:
        best = best[0], best[1], Certificate(best[1].epsilon_range, best[1].epsilon_exact(), bounded_range)
    return best


def _between(lower: tuple[float, float], low: tuple[float, float], high: tuple[float, float], epsilon: float) -> float:
    """Where a line through both sides meets a little less than epsilon: epsilon grows about as sharpness does.

    Without a high side the line is that through the low side's last two, the first of which is 0.
    """
    aim = epsilon * (1 - _CLOSE / 2)
    if math.isinf(high[0]):
        slope = (low[1] - lower[1]) / (low[0] - lower[0]) if low[0] > lower[0] else 0.0
        most = low[0] * _MOST_STEP
        return min(most, low[0] + (aim - low[1]) / slope) if slope > 0 else most
    if math.isinf(high[1]):
        return (low[0] + high[0]) / 2
    return low[0] + (high[0] - low[0]) * (aim - low[1]) / (high[1] - low[1])
