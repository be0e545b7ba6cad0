"""Two syncers, one outside editor and all kinds of trouble: how often anything was lost, doubled or overwritten.

Schedules, checks and a way to run one seed again are in `tests/shared/sync/torture.py`. With TORTURE_STORE=tator the
store is a stand-in Tator server.
"""

import os
import sys
from collections import Counter
from typing import Any

from tests.benchmarks import _common
from tests.shared.sync.torture import Outcome, torture

SCHEDULES = 400
FIRST = 1  # the seed of the first
AT_ONCE = 6  # each waits a lot


def run() -> dict[str, Any]:
    """The number of violations over all schedules."""
    import fiftyone.core.odm as odm

    faults: Counter[str] = Counter()
    wrong: list[str] = []
    told = 0

    def tell(outcome: Outcome) -> None:
        nonlocal told
        told += 1
        faults.update(outcome.faults)
        wrong.extend(outcome.wrong)
        for each in outcome.wrong:
            print(each, file=sys.stderr, flush=True)
        if told % 20 == 0:
            print(f"{told} schedules, {len(wrong)} violations: {_said(faults)}", flush=True)

    folder = _common.ROOT / "build" / "bench" / "torture"
    seeds = range(FIRST, FIRST + int(os.environ.get("TORTURES", SCHEDULES)))
    torture(seeds, odm.get_db_conn().client.address, folder, AT_ONCE, tell, os.environ.get("TORTURE_STORE", "mongodb"))
    return {
        "name": "sync_torture",
        "ours": len(wrong),
        "peer": None,
        "ratio": None,
        "unit": f"violations in {told} schedules",
        "goal": "<= 0",
        "schedules": told,
        "happened": dict(faults),
        "violations": wrong,
    }


def _said(faults: Counter[str]) -> str:
    return ", ".join(f"{count} {fault}" for fault, count in faults.most_common())
