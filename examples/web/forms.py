"""The input from clients, and the output for them."""

from __future__ import annotations

import re
from typing import Any, NewType, TypeVar

import attrs
import cattrs
import orjson
from starlette.requests import Request

from blazen_trio import HistoryRecord, Snapshot

T = TypeVar("T")

CLAIM_ID = r"[A-Za-z0-9._-]{1,64}"


ClaimId = NewType("ClaimId", str)
Cents = NewType("Cents", int)
Words = NewType("Words", str)

MAX_CENTS = 1_000_000_00
MAX_RECEIPTS = 1000
MAX_CHARACTERS = 1000
"""The limit for a text."""
MAX_BYTES = 1024 * 1024
"""The limit for a body."""


@attrs.frozen
class ReceiptForm:
    """A receipt. The limits keep a claim's total within 64 bits, which all JSON readers support."""

    what: Words
    cents: Cents


@attrs.frozen(kw_only=True)
class ClaimForm:
    """A new claim. The client chooses its id, so that a claim sent twice is the same claim."""

    id: ClaimId
    employee: Words
    receipts: list[ReceiptForm]


@attrs.frozen(kw_only=True)
class DecisionForm:
    """The answer to a question."""

    request_id: Words
    approved: bool
    by: Words


@attrs.frozen(kw_only=True)
class CancelForm:
    """The reason for cancelling a claim."""

    reason: Words


class BadInputError(Exception):
    """The request's body is invalid.

    Attributes:
        problems: One sentence for each problem.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TooLargeError(BadInputError):
    """The request's body is too large."""


class _BadValueError(ValueError):
    """A value is invalid. The message is for the client."""


def _exactly(value: object, cls: type) -> object:
    """Require the exact type: 1.5 cents are not 1, and "false" is not true."""
    if type(value) is not cls:
        msg = f"expected {cls.__name__}, found {value!r:.80}"
        raise _BadValueError(msg)
    return value


def _claim_id(value: object, _cls: type) -> ClaimId:
    if not isinstance(value, str) or not re.fullmatch(CLAIM_ID, value):
        msg = f"expected a string that matches {CLAIM_ID}, found {value!r:.80}"
        raise _BadValueError(msg)
    return ClaimId(value)


def _cents(value: object, _cls: type) -> Cents:
    if type(value) is not int or not 0 < value <= MAX_CENTS:
        msg = f"expected int from 1 to {MAX_CENTS}, found {value!r:.80}"
        raise _BadValueError(msg)
    return Cents(value)


def _words(value: object, _cls: type) -> Words:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CHARACTERS or "\0" in value:
        msg = f"expected 1 to {MAX_CHARACTERS} characters without NUL, found {value!r:.80}"
        raise _BadValueError(msg)
    return Words(value)


def _explain(error: BaseException, cls: type | None) -> str:
    return (
        str(error) if isinstance(error, _BadValueError) else cattrs.v.format_exception(error, cls)
    )


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(ClaimId, _claim_id)
_converter.register_structure_hook(Cents, _cents)
_converter.register_structure_hook(Words, _words)
for _cls in (str, int, bool):
    _converter.register_structure_hook(_cls, _exactly)


async def read_form(request: Request, form: type[T]) -> T:
    """Read the request's JSON body as a form.

    Raises:
        TooLargeError: The body is too large.
        BadInputError: The body is not JSON, or does not fit the form.
    """
    body = bytearray()
    # Read to the end, because a client that is still sending would not read the answer.
    async for part in request.stream():
        if len(body) <= MAX_BYTES:
            body += part
    if len(body) > MAX_BYTES:
        raise TooLargeError([f"the body has more than {MAX_BYTES} bytes"])
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadInputError([f"the body is not JSON: {error}"]) from error
    if not isinstance(content, dict):
        raise BadInputError(["the body is not a JSON object"])
    try:
        made = _converter.structure(content, form)
    except cattrs.BaseValidationError as error:
        raise BadInputError(cattrs.transform_error(error, format_exception=_explain)) from error
    if isinstance(made, ClaimForm) and not 0 < len(made.receipts) <= MAX_RECEIPTS:
        raise BadInputError([f"expected 1 to {MAX_RECEIPTS} receipts @ $.receipts"])
    return made


def read_number(text: str) -> int:
    """Return the number of the last event that a client has, or 0 if the text is not a number."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0


def show_claim(snapshot: Snapshot) -> dict[str, Any]:
    """Return a stored run as clients see it."""
    return {
        "id": snapshot.run_id,
        "status": snapshot.status.value,
        "state": snapshot.state,
        "questions": [
            {
                "request_id": question.request_id,
                "prompt": question.prompt,
                "metadata": question.metadata,
            }
            for question in snapshot.input_requests
        ],
        "result": snapshot.result,
        "error": snapshot.error,
    }


def show_record(record: HistoryRecord) -> dict[str, Any]:
    """Return a record of a run's history as clients see it."""
    return {key: value for key, value in attrs.asdict(record).items() if value is not None}
