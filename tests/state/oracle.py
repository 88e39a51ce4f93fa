"""A naive model of the order of a run's live items.

Every item carries its whole path, and nothing is counted. The model knows the declarations of a
workflow (what each step accepts and emits), and works out by itself which step can lead to which.
"""

from __future__ import annotations

import functools
from typing import Any

from blazen_trio import Delayed, Event, InputRequestEvent, InputResponseEvent, StepFailedEvent
from blazen_trio._definitions.definition import WorkflowDefinition
from tests.state.family import name_of

Path = tuple[int, ...]


class Group:
    """A fan-out, or the root."""

    def __init__(
        self, joins: list[str], *, if_any: frozenset[str] = frozenset(), root: bool = False
    ) -> None:
        self.joins = joins
        """The joins that it has still to fire. The root keeps all of them."""
        self.if_any = if_any
        """The joins that other lists fire, and that only failures lead to from here.

        They fire if they have collected anything.
        """
        self.root = root


class Node:
    """A live item. `kind` is as in the snapshot's document, `what` is its step, join or class."""

    def __init__(
        self, group: Group, path: Path, kind: str, what: Any, label: Any, inner: Group | None = None
    ) -> None:
        self.group, self.path, self.kind, self.what, self.label, self.inner = (
            group,
            path,
            kind,
            what,
            label,
            inner,
        )


class Oracle:
    """The live items that a run must have."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        self.steps = definition.steps
        self.order = list(self.steps)
        self.root = Group([name for name in self.order if self.steps[name].is_join], root=True)
        self.nodes: list[Node] = []
        self.arrivals = 0
        self.fired: list[tuple[str, list[str]]] = []
        """The joins that the last transition fired: (join, its members' labels in order)."""
        # Cached, because declarations do not change and every transition needs these.
        self._takers = functools.cache(self._find_takers)
        self._next = functools.cache(self._find_next)
        self._feeds = functools.cache(self._find_feeds)
        self._opens: dict[bool, dict[str, list[str]]] = {}
        for failing in (False, True):
            self._opens[failing] = {name: [] for name in self.order}
            while (found := self._fired_by_all(failing)) != self._opens[failing]:
                self._opens[failing] = found
        self._at_home = frozenset(join for joins in self._opens[False].values() for join in joins)

    # Which step can lead to which

    def _find_takers(self, cls: type[Event], *, exact: bool = False) -> list[str]:
        """Find the steps that may receive an event declared as this class."""
        return [
            name
            for name in self.order
            if any(
                issubclass(cls, one) or (not exact and issubclass(one, cls))
                for one in self.steps[name].accepts
            )
        ]

    def _handlers(self, step: str) -> list[str]:
        return [
            name
            for name in self.order
            if name != step and StepFailedEvent in self.steps[name].accepts
        ]

    def _find_next(self, step: str, failing: bool) -> list[str]:
        """Find the steps of its level that receive the outputs of a step."""
        found = self._handlers(step) if failing else []
        for cls in self.steps[step].emits:
            found += self._takers(cls)
            if issubclass(cls, InputRequestEvent):
                found += self._takers(InputResponseEvent)
        return found

    def _reached(
        self,
        takers: list[str],
        running: list[str],
        *,
        root: bool = False,
        target: str = "",
        failing: bool = True,
    ) -> set[str]:
        """Find the joins that get something if `takers` get something and `running` run."""
        joins: set[str] = set()
        done: set[str] = set()
        todo = [(name, False) for name in takers] + [(name, True) for name in running]
        while todo:
            name, runs = todo.pop()
            if self.steps[name].is_join and not runs:
                joins.add(name)
                if not root or name == target:
                    continue
            if name not in done:
                done.add(name)
                todo += [(one, False) for one in self._next(name, failing)]
                todo += [(one, True) for one in self._opens[failing][name]]
        return joins

    def _fired_by_all(self, failing: bool) -> dict[str, list[str]]:
        return {name: self._fires(self.steps[name].list_emits, failing) for name in self.order}

    def _fires(self, classes: tuple[type[Event], ...], failing: bool) -> list[str]:
        takers = [name for cls in classes for name in self._takers(cls)]
        if any(issubclass(cls, InputRequestEvent) for cls in classes):
            takers += self._takers(InputResponseEvent)
        joins = self._reached(takers, [], failing=failing)
        return [name for name in self.order if name in joins]

    def _may_feed(self, node: Node, join: str) -> bool:
        return self._feeds(node.kind, node.what, join, root=node.group.root)

    def _find_feeds(self, kind: str, what: Any, join: str, *, root: bool) -> bool:
        """Return whether such an item, in a fan-out or in the root, may lead to the join."""
        if kind == "member":
            # Other root joins that have members may lead to a root join, unless the two lead to
            # each other.
            there = join in self._reached([], [what], root=True, target=join)
            back = what in self._reached([], [join], root=True, target=what)
            return root and what != join and there and not back
        if kind == "question":
            return join in self._reached(
                self._takers(InputResponseEvent), [], root=root, target=join
            )
        if kind == "delayed":
            takers = list(self._takers(what, exact=True))
            if issubclass(what, InputRequestEvent):
                takers += self._takers(InputResponseEvent)
            return join in self._reached(takers, [], root=root, target=join)
        return join in self._reached([], [what], root=root, target=join)

    # Transitions

    def begin(self, event: Event) -> None:
        self.received(event)

    def received(self, event: Event) -> None:
        self.fired = []
        self._place(self.root, (self.arrivals,), event)
        self.arrivals += 1
        self._fire()

    def done(self, node: Node, outputs: list[Any], members: list[Any] | None = None) -> None:
        """Replace a consumed item with its outputs."""
        self.fired = []
        self.nodes.remove(node)
        group, path = node.group, node.path
        for index, output in enumerate(outputs):
            self._place(group, (*path, index), output)
        if members is not None:
            joins = self._opens[True][node.what]
            inner = Group(list(joins), if_any=self._at_home - set(self._opens[False][node.what]))
            for index, join in enumerate(joins):
                self.nodes.append(
                    Node(group, (*path, len(outputs) + index), "pending", join, None, inner)
                )
            for index, member in enumerate(members):
                if joins:
                    self._place(inner, (index,), member)
                else:
                    self._place(group, (*path, len(outputs) + index), member)
        self._fire()

    def _place(self, group: Group, path: Path, output: Any) -> None:
        if isinstance(output, Delayed):
            event: Any = output.event
            self.nodes.append(Node(group, path, "delayed", type(event), name_of(event)))
            return
        label = name_of(output)
        if isinstance(output, InputRequestEvent):
            self.nodes.append(Node(group, (*path, -1), "question", type(output), label))
        takers = self._takers(type(output), exact=True)
        if isinstance(output, StepFailedEvent):
            takers = [name for name in takers if name != output.step_name]
        for index, name in enumerate(self.order):
            if name in takers:
                kind = "member" if self.steps[name].is_join else "delivery"
                self.nodes.append(Node(group, (*path, index), kind, name, label))

    # Joins

    def _fire(self) -> None:
        inner = [node.inner for node in self.nodes if node.inner is not None]
        for group in reversed(list(dict.fromkeys([self.root, *inner]))):
            self._fire_all(group)

    def _fire_all(self, group: Group) -> None:
        for join in list(group.joins):
            self._fire_one(group, join)

    def _fire_one(self, group: Group, join: str) -> None:
        inside = [node for node in self.nodes if node.group is group]
        members = sorted(
            (n for n in inside if n.kind == "member" and n.what == join), key=lambda node: node.path
        )
        if (group.root and not members) or any(self._may_feed(node, join) for node in inside):
            return
        place = (
            members[0]
            if group.root
            else next(n for n in self.nodes if n.inner is group and n.what == join)
        )
        labels = [node.label for node in members]
        for used in {*members, place}:
            self.nodes.remove(used)
        if not members and join in group.if_any:
            group.joins.remove(join)
            self._fire_all(place.group)
            return
        self.nodes.append(Node(place.group, place.path, "delivery", join, labels))
        if not group.root:
            group.joins.remove(join)
        self.fired.append((join, labels))

    def items(self, group: Group) -> list[Node]:
        """Return the live items of a group, in order."""
        return sorted(
            (node for node in self.nodes if node.group is group), key=lambda node: node.path
        )

    def open_groups(self) -> list[Group]:
        """Return the groups whose order still matters."""
        if not self.root.joins:
            return []
        return [
            self.root,
            *dict.fromkeys(node.inner for node in self.nodes if node.inner is not None),
        ]
