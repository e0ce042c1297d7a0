"""What privkt.privacy refuses, and with which words: subject, rule, what came, what to do.

Everything under `RefusedInput` is found before any budget is spent; the command line ends with exit code 2 for it.
Messages hold names, numbers and hashes of public things, never private text.
"""


class PrivacyError(Exception):
    """Anything privkt.privacy raises on purpose."""


class RefusedInput(PrivacyError, ValueError):
    """Input that a rule of privacy forbids; nothing was spent or written."""

    exit_code = 2


class InvalidGuarantee(RefusedInput):
    """A guarantee whose numbers contradict each other or its kind."""


class InvalidBudget(RefusedInput):
    """An epsilon or delta that no run may ask for."""


class InvalidEvent(RefusedInput):
    """An event that our factory did not make, or parameters that no mechanism can have."""


class BudgetExceeded(RefusedInput):
    """The data set's filter has less left than a charge asks for."""

    def __init__(self, message: str, *, left: tuple[float, float], asked: tuple[float, float]) -> None:
        super().__init__(message)
        self.left = left
        self.asked = asked


class UnprotectedRelease(RefusedInput):
    """A charge of kind none that was not forced."""


class UnderstatedGuarantee(RefusedInput):
    """A guarantee that promises less epsilon than its own event costs."""


class LedgerMismatch(RefusedInput):
    """Unit, relation, filter or name differ from what the ledger was made with."""


class LedgerMissing(RefusedInput):
    """No ledger where one was asked for."""


class LedgerTampered(RefusedInput):
    """The hash chain does not hold; `entry` is the first sequence number that is wrong."""

    def __init__(self, message: str, *, entry: int | None = None) -> None:
        super().__init__(message)
        self.entry = entry


class DataChanged(RefusedInput):
    """The data behind a name has another fingerprint than at its last charge."""


class ResumedOnOtherData(DataChanged):
    """A spend that is resumed with other data than it was charged for; no confirmation helps."""


class SameDataElsewhere(RefusedInput):
    """A new name for data that another ledger of this state folder already accounts for."""


class ChargeConflict(RefusedInput):
    """A charge, payload or resume that contradicts what the ledger already holds."""


class PrivateAccessLocked(PrivacyError, RuntimeError):
    """Private data was touched while post-processing a release."""


class LedgerUnavailable(PrivacyError):
    """The ledger's file cannot be read or written now (full disk, locked for a minute); nothing was spent."""
