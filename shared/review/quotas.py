"""How many of each: a budget among kinds by shares, and spot checks among classes by equal sums."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def share_out(
    budget: int, have: Mapping[str, int], fixed: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, int]:
    """Shares a budget out among kinds, never more than there are; what one cannot use goes to the others.

    Args:
        budget: to be shared out
        have: how many there are of each kind
        fixed: quotas that stand already
        shares: of the budget, while there are enough
    """
    quotas = {kind: min(n, have[kind]) for kind, n in fixed.items()}
    open_ = {kind for kind in shares if kind not in quotas and have[kind]}
    left = budget - sum(quotas.values())
    while open_ and left > 0:
        total = sum(shares[kind] for kind in open_)
        full = {kind for kind in open_ if have[kind] <= left * shares[kind] / total}
        if not full:
            # Whole numbers by the largest remainder.
            exact = {kind: left * shares[kind] / total for kind in shares if kind in open_}
            quotas |= {kind: int(n) for kind, n in exact.items()}
            spare = left - sum(int(n) for n in exact.values())
            for kind in sorted(exact, key=lambda kind: int(exact[kind]) - exact[kind])[:spare]:
                quotas[kind] += 1
            break
        for kind in full:
            quotas[kind] = have[kind]
            left -= have[kind]
        open_ -= full
    return {kind: quotas.get(kind, 0) for kind in shares}


def level(checked: np.ndarray, have: np.ndarray, count: int) -> np.ndarray:
    """Shares `count` out among classes so that the sums with what was checked before are as equal as they can be.

    Args:
        checked: of each class before, (C,)
        have: how many there are of each, (C,)
        count: to be shared out

    Returns:
        int64 (C,)
    """
    quotas = np.zeros(len(have), np.int64)
    count = min(count, int(have.sum()))
    while (left := count - int(quotas.sum())) > 0:
        open_ = np.flatnonzero(quotas < have)
        sums = (checked + quotas)[open_]
        lowest = open_[sums == sums.min()]
        above = sums[sums > sums.min()]
        step = int(above.min() - sums.min()) if len(above) else left
        step = max(1, min(step, left // len(lowest), int((have - quotas)[lowest].min())))
        # Where not every class of the lowest gets one more, the largest do.
        for one in lowest[np.argsort(-have[lowest], kind="stable")][: left // step]:
            quotas[one] += step
    return quotas
