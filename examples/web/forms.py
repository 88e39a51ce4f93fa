"""What clients send, and what they are shown."""

from __future__ import annotations

import re
from typing import Any, NewType, TypeVar

import attrs
import cattrs
import orjson
from claims import Receipt
from starlette.requests import Request

from blazen_trio import HistoryRecord, Snapshot

T = TypeVar("T")

CLAIM_ID = r"[A-Za-z0-9._-]{1,64}"


ClaimId = NewType("ClaimId", str)


@attrs.frozen(kw_only=True)
class ClaimForm:
    """A new claim. Its id is the client's: sent again, since the answer was lost, it is the same claim."""

    id: ClaimId
    employee: str
    receipts: list[Receipt]


@attrs.frozen(kw_only=True)
class DecisionForm:
    """The answer to a question."""

    request_id: str
    approved: bool
    by: str


@attrs.frozen(kw_only=True)
class CancelForm:
    """Why a claim is cancelled."""

    reason: str


class BadInputError(Exception):
    """The request's body is not what it should be.

    Attributes:
        problems: One sentence for each fault.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


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


def _explain(error: BaseException, cls: type | None) -> str:
    return (
        str(error) if isinstance(error, _BadValueError) else cattrs.v.format_exception(error, cls)
    )


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(ClaimId, _claim_id)
for _cls in (str, int, bool):
    _converter.register_structure_hook(_cls, _exactly)


async def read_form(request: Request, form: type[T]) -> T:
    """The request's JSON body as a form.

    Raises:
        BadInputError: It is none.
    """
    try:
        content = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise BadInputError([f"the body is not JSON: {error}"]) from error
    if not isinstance(content, dict):
        raise BadInputError(["the body is not a JSON object"])
    try:
        return _converter.structure(content, form)
    except cattrs.BaseValidationError as error:
        raise BadInputError(cattrs.transform_error(error, format_exception=_explain)) from error


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
