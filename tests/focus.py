"""A focus list of one item, for tests."""

from datetime import UTC, datetime

from shared.lineage import focus_list

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def made(at: datetime = AT, **fields) -> focus_list.FocusList:
    """A list of that time; other values by name."""
    item = focus_list.FocusItem(
        number=1, kind="confused", name="a taken for *b*", sentence="3 of 9.", count=3, labels=3, top1=0.1, macro_f1=0.2
    )
    given = {"dataset": "d", "dataset_id": "0" * 24, "label_field": "g", "prediction_field": "p", "eval_key": "e"}
    scores = {"evaluated": 1200, "learned_from": 4, "top1": 0.9, "macro_f1": 0.8, "items": [item]}
    return focus_list.FocusList(at=at, **{**given, **scores, **fields})
