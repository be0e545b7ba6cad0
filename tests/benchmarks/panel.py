"""Opening the panel `model_lineage` with 500 versions: seconds to its first content, by FiftyOne's own machinery."""

import asyncio
import statistics
import time
import uuid

from tests.benchmarks import _registry

VERSIONS = 500
ROUNDS = 9
GOAL = 0.5
URI = "@mbari/lineage_card/model_lineage"


def run() -> dict:
    """The median time of `on_load`, the registry's part included; the App draws what it gives."""
    import fiftyone as fo
    import fiftyone.core.odm as odm
    from fiftyone.operators.executor import execute_or_delegate_operator

    db = odm.get_db_conn()
    names = _registry.register(db, VERSIONS)
    dataset = fo.Dataset(f"bench-{uuid.uuid4().hex[:8]}")
    params = {"__method__": "on_load", "panel_id": "panel", "panel_state": {}}
    request = {"dataset_name": dataset.name, "params": params}
    seconds = []
    try:
        for _ in range(1 + ROUNDS):  # the first fills caches: the App's server, too, has listed its plugins before
            began = time.perf_counter()
            result = asyncio.run(execute_or_delegate_operator(URI, {**request, "params": dict(params)}))
            result.raise_exceptions()
            asked = {each["operator_uri"]: each["params"] for each in result.executor.to_json()["requests"]}
            seconds.append(time.perf_counter() - began)
            shown = next(iter(asked["patch_panel_data"]["data"].values()))
            assert len(shown) == 25, len(shown)
            assert shown[0]["version"] == names[-1], shown[0]
    finally:
        dataset.delete()
        _registry.forget(db, names)
    return {
        "name": "panel",
        "ours": round(statistics.median(seconds[1:]), 4),
        "peer": None,
        "ratio": None,
        "unit": f"seconds to the first content of the panel, {VERSIONS} versions",
        "goal": f"<= {GOAL}",
        "first": round(seconds[0], 4),
        "rounds": [round(each, 4) for each in seconds[1:]],
    }
