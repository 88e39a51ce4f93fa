"""Which question an answer is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._definitions.definition import no_handler
from blazen_trio.errors import InputResponseError

if TYPE_CHECKING:
    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.events import InputResponseEvent
    from blazen_trio._state.model import Question, RunState

__all__ = ["question_of"]


def question_of(
    definition: WorkflowDefinition, state: RunState, response: InputResponseEvent
) -> Question:
    """Return the open question that an answer is for.

    Raises:
        InputResponseError: No question of this `request_id` is open.
        NoHandlerError: No step accepts the answer.
    """
    request_id: object = response.request_id
    question = state.questions.get(request_id) if isinstance(request_id, str) else None
    if question is None:
        raise InputResponseError(
            f"no question with request_id {request_id!r:.200} is open in run {state.run_id!r}: it "
            f"is unknown or answered already; open are {sorted(state.questions) or 'none'}",
            run_id=state.run_id,
            request_id=str(request_id),
        )
    if not definition.accepts(type(response)):
        raise no_handler(definition, response, state.run_id)
    return question
