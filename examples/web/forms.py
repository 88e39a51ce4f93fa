"""What clients send, and what they are shown."""

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

MOST_CENTS = 1_000_000_00
MOST_RECEIPTS = 1000
LONGEST = 1000
"""Characters of a text."""
LARGEST = 1024 * 1024
"""Bytes of a body."""


@attrs.frozen
class ReceiptForm:
    """A receipt. Sums of all that is taken can be stored and shown: JSON's readers end at 64 bits."""

    what: Words
    cents: Cents


@attrs.frozen(kw_only=True)
class ClaimForm:
    """A new claim. Its id is the client's: sent again, since the answer was lost, it is the same claim."""

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
    """Why a claim is cancelled."""

    reason: Words


class BadInputError(Exception):
    """The request's body is not what it should be.

    Attributes:
        problems: One sentence for each fault.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TooLargeError(BadInputError):
    """The request's body is larger than any that is meant."""


class _BadValueError(ValueError):
    """A value is not what it should be; its text is for the client."""


def _exactly(value: object, cls: type) -> object:
    """No guessing: 1.5 cents are not 1, and "false" is not true."""
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
    if type(value) is not int or not 0 < value <= MOST_CENTS:
        msg = f"expected int from 1 to {MOST_CENTS}, found {value!r:.80}"
        raise _BadValueError(msg)
    return Cents(value)


def _words(value: object, _cls: type) -> Words:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or "\0" in value:
        msg = f"expected 1 to {LONGEST} characters without NUL, found {value!r:.80}"
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
    """The request's JSON body as a form.

    Raises:
        TooLargeError: It is too large.
        BadInputError: It is none.
    """
    body = bytearray()
    async for part in request.stream():  # to its end, or the client would not read the answer
        if len(body) <= LARGEST:
            body += part
    if len(body) > LARGEST:
        raise TooLargeError([f"the body has more than {LARGEST} bytes"])
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
    if isinstance(made, ClaimForm) and not 0 < len(made.receipts) <= MOST_RECEIPTS:
        raise BadInputError([f"expected 1 to {MOST_RECEIPTS} receipts @ $.receipts"])
    return made


def read_number(text: str) -> int:
    """The number of the last event that a client has; 0 for what is no number of ours."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0


def show_claim(snapshot: Snapshot) -> dict[str, Any]:
    """A run as clients see it, as it is on disk."""
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
    """Something that happened to a run, as clients see it."""
    return {key: value for key, value in attrs.asdict(record).items() if value is not None}
