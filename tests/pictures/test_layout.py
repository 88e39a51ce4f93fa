"""The layout of boxes and edges, for any graph."""

from __future__ import annotations

import itertools
import subprocess
import sys

from hypothesis import given, strategies as st

from blazen_trio._pictures.layout import lay_out

graphs = st.integers(1, 14).flatmap(
    lambda count: st.tuples(
        st.lists(st.tuples(st.floats(20, 300), st.floats(20, 80)), min_size=count, max_size=count),
        st.lists(
            st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=3 * count
        ),
    )
)


def laid_out(graph):
    sizes, pairs = graph
    edges = list(dict.fromkeys((f"n{source}", f"n{target}") for source, target in pairs))
    return lay_out({f"n{index}": size for index, size in enumerate(sizes)}, edges), edges


@given(graphs)
def test_no_two_boxes_overlap_and_all_are_inside(graph):
    layout, _ = laid_out(graph)
    for box in layout.boxes.values():
        assert 0 < box.x - box.width / 2 < box.x + box.width / 2 < layout.width
        assert 0 < box.y - box.height / 2 < box.y + box.height / 2 < layout.height
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        aside = abs(one.x - other.x) >= (one.width + other.width) / 2 + 10
        assert aside or abs(one.y - other.y) >= (one.height + other.height) / 2 + 10


@given(graphs)
def test_edges_join_their_boxes_and_run_through_no_other(graph):
    layout, edges = laid_out(graph)
    assert set(layout.routes) == set(edges)
    for (source, target), route in layout.routes.items():
        (x, y), (to_x, to_y) = route.points[0], route.points[-1]
        start, end = layout.boxes[source], layout.boxes[target]
        assert abs(y - (start.y + start.height / 2)) < 0.2
        assert abs(to_y - (end.y - end.height / 2)) < 0.2
        assert abs(x - start.x) <= start.width / 2
        assert abs(to_x - end.x) <= end.width / 2
        assert route.back == (to_y < y)
        for (x, y), (to_x, to_y) in itertools.pairwise(route.points):
            if x == to_x:  # vertical; the other segments lie between the layers
                for box in layout.boxes.values():
                    beside = abs(x - box.x) >= box.width / 2 - 0.1
                    assert (
                        beside
                        or max(y, to_y) <= box.y - box.height / 2 + 0.2
                        or min(y, to_y) >= box.y + box.height / 2 - 0.2
                    )


def test_the_same_graph_is_drawn_the_same_in_every_process():
    program = (
        "from blazen_trio._pictures.layout import lay_out\n"
        "edges = [(f'n{a}', f'n{b}') for a in range(6) for b in range(6)]\n"
        "print(lay_out({f'n{a}': (50, 20) for a in range(6)}, edges))"
    )
    drawn = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(drawn) == 1


def test_a_long_chain_does_not_recurse_deeply():
    ids = [f"n{index}" for index in range(3000)]
    layout = lay_out(dict.fromkeys(ids, (50, 20)), list(itertools.pairwise(ids)))
    assert len({box.y for box in layout.boxes.values()}) == 3000


def test_an_order_without_crossings_is_found():
    pairs = [("a", "d"), ("b", "c"), ("a", "e"), ("b", "f")]
    layout = lay_out(dict.fromkeys("abcdef", (50, 20)), pairs)
    x = {id_: box.x for id_, box in layout.boxes.items()}
    assert (x["a"] < x["b"]) == (max(x["d"], x["e"]) < min(x["c"], x["f"]))
