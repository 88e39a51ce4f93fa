"""Layout of a directed graph in layers from top to bottom (a simple form of Sugiyama's method).

1. Edges that close a cycle are set aside. 2. A box's layer is the length of the longest path to it.
3. An edge over several layers gets a point in each layer between. 4. Sweeps order each layer by the
means of its neighbours' places; the order with the fewest crossings is kept. 5. Each layer's boxes
move as close to their neighbours as their order allows. 6. Edges that close a cycle lead back up
through the nearest free corridor.

Boxes and points of a layer have places of their own, and between two layers there are only edges.
So no two boxes overlap, and no edge runs through a box.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right, insort
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Box", "Layout", "Route", "lay_out"]

MARGIN: Final = 24.0
GAP: Final = 28.0
"""The gap between two boxes of a layer."""
LANE: Final = 14.0
"""The gap between an edge and anything beside it."""
RISE: Final = 40.0
"""The least gap between two layers."""
_SWEEPS: Final = 12


@attrs.frozen
class Box:
    """A placed box; `x` and `y` are its middle."""

    x: float
    y: float
    width: float
    height: float


@attrs.frozen
class Route:
    """The route of an edge.

    Attributes:
        points: From the source's box to the target's: (x, y), at each of which the edge is
            vertical.
        back: Whether it closes a cycle, and so leads up.
    """

    points: tuple[tuple[float, float], ...]
    back: bool


@attrs.frozen
class Layout:
    """The result; the drawing's left upper corner is (0, 0)."""

    width: float
    height: float
    boxes: dict[str, Box]
    routes: dict[tuple[str, str], Route]


def lay_out(sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]]) -> Layout:
    """Place boxes of these sizes (width, height; by id, at least one) and route these edges.

    The same input always gives the same layout.
    """
    return _Drawing(sizes, edges).result()


class _Place:
    """A box, or the point where a long edge passes a layer."""

    def __init__(self, layer: int, width: float) -> None:
        self.layer = layer
        self.width = width
        self.above: list[_Place] = []
        self.below: list[_Place] = []
        self.order = 0
        self.x = 0.0

    @property
    def is_point(self) -> bool:
        return self.width == 0

    def desired(self, *, down: bool) -> float:
        """Return the mean of its neighbours' places; its own place if it has none."""
        near = self.above if down else self.below
        return sum(one.x for one in near) / len(near) if near else self.x


class _Drawing:
    def __init__(
        self, sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]]
    ) -> None:
        self.sizes = sizes
        self.edges = list(dict.fromkeys(edges))
        self.back = _closing(list(sizes), self.edges)
        forward = [edge for edge in self.edges if edge not in self.back]
        layers = _layers(list(sizes), forward)
        self.places = {id_: _Place(layers[id_], width) for id_, (width, _) in sizes.items()}
        self.layers: list[list[_Place]] = [[] for _ in range(max(layers.values()) + 1)]
        for place in self.places.values():
            self.layers[place.layer].append(place)
        self.chains = {edge: self._chain(*edge) for edge in forward}
        self._order()
        self._spread()
        heights = [0.0] * len(self.layers)
        for id_, (_, height) in sizes.items():
            layer = self.places[id_].layer
            heights[layer] = max(heights[layer], height)
        self.heights = heights

    # The order in each layer

    def _chain(self, source: str, target: str) -> list[_Place]:
        """Return the places that an edge passes, including its ends."""
        chain = [self.places[source]]
        for layer in range(chain[0].layer + 1, self.places[target].layer):
            point = _Place(layer, 0.0)
            self.layers[layer].append(point)
            chain.append(point)
        chain.append(self.places[target])
        for upper, lower in itertools.pairwise(chain):
            upper.below.append(lower)
            lower.above.append(upper)
        return chain

    def _order(self) -> None:
        self._number()
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(_SWEEPS):
            if not fewest:
                break
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                layer.sort(key=lambda place: (place.desired(down=down), place.order))
                for index, place in enumerate(layer):
                    place.x = place.order = index
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best
        self._number()

    def _number(self) -> None:
        for layer in self.layers:
            for index, place in enumerate(layer):
                place.x = place.order = index

    def _crossings(self) -> int:
        """Count the pairs of edges that cross: inversions, by insertion into a sorted list."""
        total = 0
        for layer in self.layers:
            seen: list[int] = []
            for upper in layer:
                ends = [lower.order for lower in upper.below]
                total += sum(len(seen) - bisect_right(seen, end) for end in ends)
                for end in ends:
                    insort(seen, end)
        return total

    # Where they go

    def _spread(self) -> None:
        for layer in self.layers:
            _settle(layer, [0.0] * len(layer))
        for sweep in range(2 * _SWEEPS):
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                _settle(layer, [place.desired(down=down) for place in layer])

    def result(self) -> Layout:
        tops, bottom = self._levels()
        ends = [top + height for top, height in zip(tops, self.heights, strict=True)]
        boxes = {
            id_: Box(
                self.places[id_].x,
                tops[self.places[id_].layer] + self.heights[self.places[id_].layer] / 2,
                *size,
            )
            for id_, size in self.sizes.items()
        }
        lanes = self._lanes(boxes)
        ports = _Ports(self.edges, boxes, self.chains, lanes)
        routes: dict[tuple[str, str], Route] = {}
        for edge, chain in self.chains.items():
            inner = [
                (point.x, y)
                for point in chain[1:-1]
                for y in (tops[point.layer], ends[point.layer])
            ]
            routes[edge] = self._route(edge, ports, inner, tops, ends)
        for edge, lane in lanes.items():
            first, last = ends[self.places[edge[0]].layer], tops[self.places[edge[1]].layer]
            routes[edge] = self._route(edge, ports, [(lane, first), (lane, last)], tops, ends)
        return _moved(boxes, routes, bottom)

    def _route(
        self,
        edge: tuple[str, str],
        ports: _Ports,
        inner: list[tuple[float, float]],
        tops: list[float],
        ends: list[float],
    ) -> Route:
        """Route an edge straight down beside boxes, and aside only between the layers."""
        (x, y), (into_x, into_y) = ports.leaving(edge), ports.entering(edge)
        end, top = ends[self.places[edge[0]].layer], tops[self.places[edge[1]].layer]
        points = dict.fromkeys([(x, y), (x, end), *inner, (into_x, top), (into_x, into_y)])
        return Route(tuple(points), back=edge in self.back)

    def _levels(self) -> tuple[list[float], float]:
        """Return the top of each layer, and the bottom of the last.

        Layers are further apart if edges between them lead far aside.
        """
        tops: list[float] = []
        y = RISE / 2 if self.back else 0.0
        for layer, height in zip(self.layers, self.heights, strict=True):
            tops.append(y)
            aside = max(
                (abs(upper.x - lower.x) for upper in layer for lower in upper.below), default=0.0
            )
            y += height + RISE + min(aside * 0.08, RISE)
        last = len(self.layers) - 1
        turns = any(self.places[source].layer == last for source, _ in self.back)
        return tops, tops[-1] + self.heights[-1] + (RISE / 2 if turns else 0.0)

    def _lanes(self, boxes: Mapping[str, Box]) -> dict[tuple[str, str], float]:
        """Return the lane of each closing edge: the free corridor nearest to its ends."""
        lanes: dict[tuple[str, str], float] = {}
        taken: list[tuple[int, int, float]] = []
        spans = [
            [
                (place.x - place.width / 2 - LANE, place.x + place.width / 2 + LANE)
                for place in layer
            ]
            for layer in self.layers
        ]
        for source, target in sorted(
            self.back, key=lambda edge: self._span(edge)[1] - self._span(edge)[0]
        ):
            first, last = self._span((source, target))
            blocked = [span for layer in spans[first : last + 1] for span in layer]
            blocked += [
                (x - LANE, x + LANE) for top, bottom, x in taken if top <= last and first <= bottom
            ]
            lane = _nearest_free((boxes[source].x + boxes[target].x) / 2, blocked)
            lanes[source, target] = lane
            taken.append((first, last, lane))
        return lanes

    def _span(self, edge: tuple[str, str]) -> tuple[int, int]:
        source, target = self.places[edge[0]].layer, self.places[edge[1]].layer
        return min(source, target), max(source, target)


class _Ports:
    """The points where edges touch boxes: side by side, in the order of their other ends."""

    def __init__(
        self,
        edges: Sequence[tuple[str, str]],
        boxes: Mapping[str, Box],
        chains: Mapping[tuple[str, str], Sequence[_Place]],
        lanes: Mapping[tuple[str, str], float],
    ) -> None:
        self._out: dict[tuple[str, str], tuple[float, float]] = {}
        self._in: dict[tuple[str, str], tuple[float, float]] = {}
        out: dict[str, list[tuple[float, tuple[str, str]]]] = {}
        into: dict[str, list[tuple[float, tuple[str, str]]]] = {}
        for edge in edges:
            source, target = edge
            if edge in chains:
                after, before = chains[edge][1].x, chains[edge][-2].x
            else:  # edges that turn do so on the outside of those that don't
                after, before = (
                    math.copysign(math.inf, lanes[edge] - boxes[end].x) for end in (source, target)
                )
            out.setdefault(source, []).append((after, edge))
            into.setdefault(target, []).append((before, edge))
        for found, ports, side in ((out, self._out, 0.5), (into, self._in, -0.5)):
            for id_, ends in found.items():
                box = boxes[id_]
                step = min(18.0, box.width * 0.8 / len(ends))
                for index, (_, edge) in enumerate(sorted(ends)):
                    ports[edge] = (
                        box.x + (index - (len(ends) - 1) / 2) * step,
                        box.y + side * box.height,
                    )

    def leaving(self, edge: tuple[str, str]) -> tuple[float, float]:
        return self._out[edge]

    def entering(self, edge: tuple[str, str]) -> tuple[float, float]:
        return self._in[edge]


def _closing(ids: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[tuple[str, str], None]:
    """Return the edges, in order, that lead back along a depth-first walk.

    Without them there is no cycle.
    """
    following: dict[str, list[str]] = {id_: [] for id_ in ids}
    entered = set()
    for source, target in edges:
        following[source].append(target)
        if source != target:
            entered.add(target)
    closing: dict[tuple[str, str], None] = {}
    state: dict[str, int] = {}  # 1: on the way, 2: left
    for root in sorted(ids, key=lambda id_: id_ in entered):  # from the entries first
        if root in state:
            continue
        state[root] = 1
        path = [(root, iter(following[root]))]
        while path:
            id_, rest = path[-1]
            for target in rest:
                if state.get(target) == 1:
                    closing[id_, target] = None
                elif target not in state:
                    state[target] = 1
                    path.append((target, iter(following[target])))
                    break
            else:
                state[id_] = 2
                path.pop()
    return closing


def _layers(ids: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return each box's layer: the length of the longest path to it.

    A box that no edge enters is placed right above the first box that it leads to.
    """
    into: dict[str, int] = dict.fromkeys(ids, 0)
    following: dict[str, list[str]] = {id_: [] for id_ in ids}
    for source, target in edges:
        following[source].append(target)
        into[target] += 1
    layers = dict.fromkeys(ids, 0)
    sources = [id_ for id_ in ids if not into[id_]]
    ready = list(sources)
    for id_ in ready:
        for target in following[id_]:
            layers[target] = max(layers[target], layers[id_] + 1)
            into[target] -= 1
            if not into[target]:
                ready.append(target)
    for id_ in sources:
        layers[id_] = min((layers[target] for target in following[id_]), default=1) - 1
    return layers


def _settle(layer: list[_Place], desired: list[float]) -> None:
    """Minimise the sum of squared distances of a layer's places from the desired ones.

    The places keep their order and their gaps: neighbours that would be too close are grouped, at
    the mean of their desired places.
    """
    offset = 0.0
    offsets: list[float] = []
    groups: list[tuple[float, int]] = []  # the mean, of how many
    for index, (place, wish) in enumerate(zip(layer, desired, strict=True)):
        if index:
            before = layer[index - 1]
            gap = LANE if place.is_point or before.is_point else GAP
            offset += (before.width + place.width) / 2 + gap
        offsets.append(offset)
        mean, count = wish - offset, 1
        while groups and groups[-1][0] > mean:
            other, many = groups.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        groups.append((mean, count))
    means = (mean for mean, count in groups for _ in range(count))
    for place, base, mean in zip(layer, offsets, means, strict=True):
        place.x = base + mean


def _nearest_free(wish: float, blocked: list[tuple[float, float]]) -> float:
    """Return the place nearest to the wish that is in none of these intervals."""
    left, right = wish, wish
    for low, high in sorted(blocked):  # the nearest free place to the right
        if low < right < high:
            right = high
    for low, high in sorted(blocked, key=itemgetter(1), reverse=True):
        if low < left < high:
            left = low
    return right if right - wish <= wish - left else left


def _moved(boxes: dict[str, Box], routes: dict[tuple[str, str], Route], bottom: float) -> Layout:
    """Return the layout moved to (0, 0), with a margin around it."""
    xs = [x for box in boxes.values() for x in (box.x - box.width / 2, box.x + box.width / 2)]
    xs += [x for route in routes.values() for x, _ in route.points]
    left = min(xs) - MARGIN
    return Layout(
        round(max(xs) + MARGIN - left, 1),
        round(bottom + 2 * MARGIN, 1),
        {
            id_: attrs.evolve(box, x=round(box.x - left, 1), y=round(box.y + MARGIN, 1))
            for id_, box in boxes.items()
        },
        {
            edge: attrs.evolve(
                route,
                points=tuple((round(x - left, 1), round(y + MARGIN, 1)) for x, y in route.points),
            )
            for edge, route in routes.items()
        },
    )
