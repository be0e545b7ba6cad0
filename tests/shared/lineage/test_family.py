"""The graph from data to a version to its descendants."""

from datetime import UTC, datetime, timedelta

from shared.lineage.family import ROWS, drawing, family
from shared.lineage.overview import Entry


def entry(number, base=None, model="m", digest="a" * 64, **more):
    made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    name = f"{model}/{made:%Y%m%dT%H%M%S}_{number:06x}"
    return Entry(name, model, made, digest=digest, dataset="plankton", base_version=base, base="yolov8n-cls.pt", **more)


def newest_first(*entries):
    return sorted(entries, key=lambda each: each.created_at, reverse=True)


def placed(boxes):
    return {box.key: (box.x, box.y) for box in boxes}


def test_a_version_stands_between_what_it_came_from_and_what_came_of_it():
    base = entry(0)
    chosen = entry(1, base.name, digest="b" * 64, aliases=("production",), top1=0.5)
    same, other = entry(2, chosen.name, digest="b" * 64), entry(3, chosen.name, model="isiis")
    grandchild = entry(4, same.name)
    boxes, left_out = family(newest_first(base, chosen, same, other, grandchild), chosen.name)
    assert left_out == 0
    assert placed(boxes) == {
        "weights": (-2, 0),
        base.name: (-1, 0),
        f"data of {base.name}": (-1, 1),
        chosen.name: (0, 0),
        f"data of {chosen.name}": (0, 1),
        same.name: (1, 0),
        grandchild.name: (2, 0),
        other.name: (1, -1),
    }
    by_key = {box.key: box for box in boxes}
    assert by_key["weights"].arrows == (base.name,)
    assert by_key["weights"].lines[0] == "yolov8n-cls.pt"
    assert by_key[base.name].arrows == (chosen.name,)
    assert set(by_key[chosen.name].arrows) == {same.name, other.name}
    assert by_key[f"data of {chosen.name}"].arrows == (chosen.name,)
    assert by_key[chosen.name].kind == "chosen"
    assert by_key[chosen.name].lines == ("<b>000001</b>", "2026-01-02", "@production", "top-1 0.500")
    assert by_key[same.name].lines[-1] == "same data"
    assert by_key[other.name].lines[0] == "isiis"
    assert by_key[other.name].lines[-1] == "data aaaaaaaa"


def test_the_first_version_has_its_weights_and_its_data():
    only = entry(0)
    assert placed(family([only], only.name)[0]) == {
        "weights": (-1, 0),
        only.name: (0, 0),
        f"data of {only.name}": (0, 1),
    }


def test_a_base_that_is_not_registered_stands_by_its_name():
    orphan = entry(1, "m/20250101T000000_abcdef")
    weights = next(box for box in family([orphan], orphan.name)[0] if box.kind == "weights")
    assert weights.lines[0].startswith("20250101T0")


def test_a_long_line_of_versions_is_cut_at_both_ends_and_said():
    chain = [entry(0)]
    for number in range(1, 3000):
        chain.append(entry(number, chain[-1].name))
    listed = newest_first(*chain)
    boxes, left_out = family(listed, chain[1000].name)
    assert {box.key for box in boxes if box.kind in ("version", "chosen")} == {each.name for each in chain[998:1003]}
    assert left_out == 1997
    assert next(box for box in boxes if box.kind == "weights").lines == ("earlier", "versions")


def test_of_many_children_those_that_fit_are_drawn():
    parent = entry(0)
    children = [entry(number, parent.name) for number in range(1, 21)]
    boxes, left_out = family(newest_first(parent, *children), parent.name)
    rows = [box.y for box in boxes if box.x == 1]
    assert rows == list(range(0, -ROWS, -1))
    assert left_out == 20 - ROWS
    assert [box.key for box in boxes if box.x == 1] == [child.name for child in children[:ROWS]]


def test_a_record_that_names_itself_as_its_base_ends_somewhere():
    odd = entry(0)
    odd = entry(0, odd.name)
    boxes, left_out = family([odd], odd.name)
    assert left_out == 0
    assert [box.key for box in boxes if box.kind == "chosen"] == [odd.name]
    assert len({box.key for box in boxes}) == len(boxes)


def test_the_drawing_has_a_box_a_text_and_an_id_of_its_own_for_each_and_all_arrows():
    base = entry(0)
    chosen = entry(1, base.name)
    boxes, _ = family(newest_first(base, chosen), chosen.name)
    figure = drawing(boxes)
    trace = figure["traces"][0]
    assert trace["ids"] == [box.key for box in boxes]
    assert len(set(trace["ids"])) == len(figure["layout"]["shapes"]) == len(trace["text"]) == len(boxes)
    assert len(figure["layout"]["annotations"]) == sum(len(box.arrows) for box in boxes)
    low, high = figure["layout"]["xaxis"]["range"]
    assert all(low < box.x < high for box in boxes)
