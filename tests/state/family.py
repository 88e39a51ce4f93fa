"""Random workflows: graphs of steps over a few event classes.

The steps are pure functions of their events.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import random
from collections.abc import Iterable
from typing import Any

import attrs

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StepFailedEvent,
    step,
)
from blazen_trio._codec.codec import Codec
from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._state.routing import Routing

DEEPEST = 4
"""Events this many hops from the start lead to no others, so every run ends despite cycles."""


@attrs.frozen
class Labelled(Event):
    label: str
    """Identifies the event. Made from the labels of the events that led to it, in order."""
    depth: int


@attrs.frozen
class E0(Labelled):
    pass


@attrs.frozen
class E1(Labelled):
    pass


@attrs.frozen
class E2(Labelled):
    pass


@attrs.frozen
class SubE2(E2):
    pass


@attrs.frozen
class E3(Labelled):
    pass


@attrs.frozen
class E4(Labelled):
    pass


@attrs.frozen
class Ask(InputRequestEvent):
    depth: int = 0


@attrs.frozen
class Answer(InputResponseEvent):
    depth: int = 0


CLASSES: tuple[type[Labelled], ...] = (E0, E1, E2, E3, E4)


class RottenError(Exception):
    """The error of a step that fails."""


@attrs.frozen
class StepSpec:
    """The declarations of a step. What it does is random, and depends only on its event."""

    name: str
    accepts: tuple[type[Event], ...]
    join: bool = False
    plain: tuple[type[Event], ...] = ()
    listed: tuple[type[Event], ...] = ()
    flags: frozenset[str] = frozenset()
    """What else the step may do: `tuple`, `late`, `ask`, `fail`, `sum`, `collect`."""


@attrs.frozen
class Family:
    """A workflow, and what its driver has to know."""

    specs: tuple[StepSpec, ...]
    definition: WorkflowDefinition
    routing: Routing
    codec: Codec
    external: tuple[type[Labelled], ...]


def label_of(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:10]


def events_in(event: Any) -> list[Any]:
    """Return the labelled events in an event, in a list of them, or in a failure."""
    if isinstance(event, StepFailedEvent):
        return events_in(event.event)
    if isinstance(event, list | tuple):
        return [one for each in event for one in events_in(each)]
    return [event]


def name_of(event: Any) -> str:
    if isinstance(event, StepFailedEvent):
        return label_of("failed", event.step_name, *map(name_of, events_in(event)))
    if isinstance(event, Ask | Answer):
        return event.request_id
    return event.label if isinstance(event, Labelled) else "start"


def depth_of(event: Any) -> int:
    listed = event if isinstance(event, list) else [event]
    inside = events_in(event)
    return max((getattr(one, "depth", 0) for one in inside), default=DEEPEST - 1) + (not listed)


def run_step(spec: StepSpec, event: Any, ctx: Any) -> Any:
    """Do what every step of a family does. `ctx` is the transaction of the step."""
    listed = event if isinstance(event, list) else [event]
    label = label_of(spec.name, *map(name_of, listed))
    ctx.set(f"ran {label}", 1)
    ctx.update(f"runs of {spec.name}", lambda count: count + 1, 0)
    if "sum" in spec.flags:
        ctx.set("sum", ctx.get("sum", 0, ()) + 1)
    if "collect" in spec.flags:
        found = ctx.collect(event, list(spec.accepts))
        if found is None:
            return None
        label = label_of(spec.name, *map(name_of, found))
    chance = random.Random(label)
    depth = depth_of(event)
    if "fail" in spec.flags and chance.random() < 0.3:
        raise RottenError(label)
    if depth >= DEEPEST or chance.random() < depth * 0.12:
        return None
    return _outputs(spec, label, depth, chance, ctx)


def _outputs(spec: StepSpec, label: str, depth: int, chance: random.Random, ctx: Any) -> Any:
    made = 0

    def make(classes: tuple[type[Event], ...]) -> Any:
        nonlocal made
        made += 1
        new = label_of(label, str(made))
        cls: Any = chance.choice(classes)
        event = (
            Ask("?", request_id=new, depth=depth + 1)
            if cls is Ask
            else _special(cls, chance)(new, depth + 1)
        )
        return (
            Delayed(event, chance.randint(0, 9))
            if "late" in spec.flags and chance.random() < 0.3
            else event
        )

    if spec.plain and chance.random() < 0.2:
        ctx.sent.append(make(spec.plain))
    if spec.listed and (depth == 0 or chance.random() < 0.6):
        least, most = (2, 5) if depth == 0 else (0, 3 if depth == 1 else 2)
        return [make(spec.listed) for _ in range(chance.randint(least, most))]
    if not spec.plain:
        return None
    if "tuple" in spec.flags:
        return tuple(make(spec.plain) for _ in range(chance.randint(0, 2 if depth < 3 else 1)))
    return make(spec.plain)


def _special(cls: type[Labelled], chance: random.Random) -> type[Labelled]:
    return SubE2 if cls is E2 and chance.random() < 0.5 else cls


def build(specs: tuple[StepSpec, ...]) -> Family:
    """Build the workflow of these steps."""
    external = tuple(cls for cls in CLASSES if any(cls in spec.accepts for spec in specs))
    definition = WorkflowDefinition("family", [_step(spec) for spec in specs], external=external)
    codec = Codec(definition.event_types, definition.value_types)
    return Family(specs, definition, Routing(definition), codec, external)


def _step(spec: StepSpec) -> Any:
    union: Any = functools.reduce(operator.or_, spec.accepts)
    emits: list[Any] = [*spec.plain, None]
    if spec.listed:
        emits.append(list[functools.reduce(operator.or_, spec.listed)])  # type: ignore[misc]
    if spec.plain and "tuple" in spec.flags:
        emits.append(tuple[functools.reduce(operator.or_, spec.plain), ...])  # type: ignore[misc]

    # No handler reaches its bound. A join that collected nothing has the same depth each time, so a
    # run may loop through it forever. The driver bounds that.
    most = 1_000_000 if StepFailedEvent in spec.accepts else 1

    @step(
        name=spec.name,
        accepts=list[union] if spec.join else spec.accepts,
        emits=emits,
        max_recoveries=most,
    )
    async def run(event: Any, ctx: Context) -> Any:
        return run_step(spec, event, ctx)

    return run


def family_of(seed: int, *, confluent: bool = False) -> Family:
    """Make a random workflow.

    It has chains, tuples, nested lists, joins, handlers, questions, delays, collects and writes.

    Args:
        seed: Determines the workflow. (Most workflows that Hypothesis draws piece by piece would be
            too small to hold a fault.)
        confluent: Make one that has the same result in any order: without cycles, and without
            `ctx.collect`.
    """
    return build(tuple(_Specs(random.Random(seed), confluent=confluent).specs()))


class _Specs:
    """Generates the steps of one workflow."""

    def __init__(self, chance: random.Random, *, confluent: bool) -> None:
        self.chance, self.confluent = chance, confluent
        self.joins = chance.random() > 0.1

    def specs(self) -> list[StepSpec]:
        chance, last = self.chance, len(CLASSES) - 1
        specs = [self._spec("begin", (StartEvent,), CLASSES[:3], ["tuple", "late", "ask"])]
        for number in range(chance.randint(5, 8)):
            first = number if number <= last else chance.randint(0, last)
            accepts = (*self._some(CLASSES[:first], 0.2), CLASSES[first])
            able = ["tuple", "late", "sum"]
            if not self.confluent:
                able.append("collect")
            if not self.confluent or first < last - 1:
                able += ["ask", "fail"]
            specs.append(
                self._spec(
                    f"step{number}",
                    accepts,
                    CLASSES[first + 1 :] if self.confluent else CLASSES,
                    able,
                )
            )
        specs += self._takers(specs)
        if not any(StepFailedEvent in spec.accepts for spec in specs):
            specs = [attrs.evolve(spec, flags=spec.flags - {"fail"}) for spec in specs]
        accepted = {cls for spec in specs for cls in spec.accepts}
        emitted = {cls for spec in specs for cls in (*spec.plain, *spec.listed)}
        homeless = tuple(cls for cls in CLASSES if cls in emitted and cls not in accepted)
        if homeless:
            specs.append(StepSpec("sink", homeless))
        chance.shuffle(specs)
        return specs

    def _some(self, things: Iterable[Any], share: float) -> list[Any]:
        return [thing for thing in things if self.chance.random() < share]

    def _spec(
        self,
        name: str,
        accepts: tuple[type[Event], ...],
        after: tuple[type[Labelled], ...],
        able: list[str],
    ) -> StepSpec:
        begins = name == "begin"
        plain: list[type[Event]] = self._some(after, 0.35)
        listed: list[type[Event]] = self._some(after, 0.5 if begins else 0.2)
        flags = frozenset(self._some(able, 0.35))
        if begins and not listed:
            listed = [after[0]]
        if "ask" in flags:
            self.chance.choice([plain, listed]).append(Ask)
        if after and not (plain or listed):
            plain = [self.chance.choice(after)]
        # The first steps mostly take events one by one. Most joins come after them.
        early = accepts[-1] in CLASSES[:2]
        join = self.joins and not begins and self.chance.random() < (0.1 if early else 0.5)
        return StepSpec(
            name, accepts, join, tuple(plain), tuple(listed), flags - {"collect"} if join else flags
        )

    def _takers(self, specs: list[StepSpec]) -> list[StepSpec]:
        """Return steps for answers and failures, if other steps may ask and fail."""
        after = CLASSES[-1:] if self.confluent else CLASSES
        takers = []
        if any("ask" in spec.flags for spec in specs):
            takers.append(self._spec("answered", (Answer,), after, []))
        if any("fail" in spec.flags for spec in specs) and self.chance.random() < 0.7:
            takers.append(self._spec("mend", (StepFailedEvent,), after, []))
        return takers
