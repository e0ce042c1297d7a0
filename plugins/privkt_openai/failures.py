"""How a server can fail, and the words for it: never its reply, a prompt or a key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from privkt.contracts import BackendError
from privkt_openai.options import DEFAULT_KEY_VARIABLE, Options

TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
# The only words of a reply that are ever shown: codes of the interface itself.
KNOWN_CODES = frozenset(
    {
        "billing_hard_limit_reached",
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "rate_limit_exceeded",
        "server_error",
        "unsupported_parameter",
        "unsupported_value",
    }
)
HOPELESS_CODES = frozenset({"billing_hard_limit_reached", "insufficient_quota"})
# A server that asks for a longer pause is better asked again by a person.
LONGEST_PAUSE = 600.0


class Trouble(StrEnum):
    """What came instead of an answer."""

    CONNECTION = "connection"
    TIMEOUT = "timeout"
    STATUS = "status"
    USELESS = "useless"


@dataclass(frozen=True)
class Failure:
    """One failed attempt. `reason` is one of our own phrases, `code` one of KNOWN_CODES."""

    trouble: Trouble
    status: int | None = None
    code: str | None = None
    reason: str = ""
    retry_after: float | None = None

    @property
    def transient(self) -> bool:
        """Whether asking again may help."""
        if self.code in HOPELESS_CODES or (self.retry_after or 0) > LONGEST_PAUSE:
            return False
        if self.trouble is not Trouble.STATUS:
            return True
        return self.status is not None and (self.status >= 500 or self.status in TRANSIENT_STATUS)

    @property
    def short(self) -> str:
        """A few public words for progress and messages."""
        if self.trouble is Trouble.CONNECTION:
            return "no connection"
        if self.trouble is Trouble.TIMEOUT:
            return "no answer in time"
        if self.trouble is Trouble.USELESS:
            return f"no usable answer ({self.reason})"
        return f"status {self.status}" + (f" ({self.code})" if self.code else "")


class ServerFailed(Exception):
    """The last attempt at one request failed."""

    def __init__(self, failure: Failure, attempts: int) -> None:
        super().__init__(failure.short)
        self.failure = failure
        self.attempts = attempts


def seconds_to_wait(header: str | None, now: datetime | None = None) -> float | None:
    """Retry-After as seconds: a number or a date (RFC 9110, 10.2.3); None where absent, past or malformed."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return seconds if 0 < seconds < float("inf") else None


def explain(failed: ServerFailed, options: Options, role: str, stored: str = "") -> BackendError:
    """The error a run ends with: who, what rule, what came, what to do; `stored` says what a resume finds."""
    failure = failed.failure
    times = f"{failed.attempts} attempt" + ("s" if failed.attempts != 1 else "")
    rule, came, remedy = _words(failure, options)
    return BackendError(
        f"backend 'openai' (models.{role}) at {options.base_url}: {rule}, got {came} after {times}; {remedy}"
        f"{'; ' + stored if stored else ''}; then resume with `privkt run --resume`"
    )


def _words(failure: Failure, options: Options) -> tuple[str, str, str]:
    came = failure.short
    if failure.trouble is Trouble.CONNECTION:
        return "the server must be up", came, "start it or mend `base_url`"
    if failure.trouble is Trouble.TIMEOUT:
        remedy = "raise `timeout`, lower `concurrency`, or use a faster server"
        return f"an answer must come within {options.timeout:g} s", came, remedy
    if failure.trouble is Trouble.USELESS:
        remedy = "check that `base_url` is the root of its API (often ending in /v1) and read the server's log"
        return "answers must be JSON of the OpenAI interface", came, remedy
    status = failure.status or 0
    if (failure.retry_after or 0) > LONGEST_PAUSE:
        remedy = f"wait {failure.retry_after:.0f} s as it asks"
        return f"a pause the server asks for must be at most {LONGEST_PAUSE:g} s", came, remedy
    if status in (401, 403):
        variable = options.key_variable
        remedy = (
            f"check the key in {variable}"
            if variable
            else f"set `api_key_env` to the variable that holds its key (such as {DEFAULT_KEY_VARIABLE})"
        )
        return "the server must accept the key", came, remedy
    if status == 404:
        remedy = "check `model`, `endpoint` and `base_url` (often ending in /v1)"
        return f"the server must serve the model {options.public_model!r}", came, remedy
    if status == 429:
        return "the server must have capacity left", came, "wait, lower `concurrency`, or raise the account's limit"
    if 300 <= status < 400:
        remedy = "put the final address into `base_url` (redirects are not followed: text goes only where told)"
        return "the server must answer itself", came, remedy
    if 400 <= status < 500:
        remedy = (
            "shorten the prompts if they exceed its context, drop top_k, repetition_penalty or `extra_body` "
            "if it does not know them, try `max_tokens_field: max_completion_tokens`"
        )
        return "the server must take the request", came, remedy
    return "the server must work", came, "read its log and mend it"
