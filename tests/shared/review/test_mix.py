"""Class mix: a season is held against the same season of earlier years, and nothing else."""

from itertools import combinations

import numpy as np
import pytest

from shared.review import mix

MONTHS = np.arange("2013-01", "2016-01", dtype="datetime64[M]")


def images(rng: np.random.Generator, each: int = 60) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """60 images a month and camera over three years; summers have another mix than winters, cameras too."""
    days = np.repeat(MONTHS.astype("datetime64[D]"), 2 * each)
    days += np.tile(np.repeat(np.arange(each // 6), 12), len(MONTHS))  # ten days of a month
    cameras = ["A", "B"] * (len(days) // 2)
    month = days.astype("datetime64[M]").astype(int) % 12
    summer, is_b = (month >= 5) & (month <= 7), np.array(cameras) == "B"
    predicted = np.where(rng.random(len(days)) < np.where(summer, 0.8, 0.2), 0, 1)
    predicted[is_b & (rng.random(len(days)) < 0.5)] = 2
    return predicted, days, cameras


def test_seasons_and_cameras_that_differ_by_themselves_are_no_finding():
    predicted, days, cameras = images(np.random.default_rng(1))
    assert mix.find(predicted, days, {"camera": cameras}, 4) == []


def test_a_season_that_differs_from_earlier_ones_of_its_kind_is_named():
    rng = np.random.default_rng(2)
    predicted, days, cameras = images(rng)
    changed = (days >= np.datetime64("2015-06-01")) & (days < np.datetime64("2015-09-01")) & (np.array(cameras) == "B")
    predicted[changed & (rng.random(len(days)) < 0.4)] = 3
    (found,) = mix.find(predicted, days, {"camera": cameras}, 4)
    assert found.name == "camera B, June to August 2015"
    assert (found.n, found.earlier, found.grown, found.before) == (180, 360, 3, 0.0)
    assert found.share == pytest.approx((predicted[changed] == 3).mean())
    assert 0.3 < found.distance < 0.5
    assert (mix.members(days, {"camera": cameras}, found) == changed).all()


def test_december_is_of_the_winter_that_follows():
    days = np.array(["2013-12-15", "2014-02-15"] * 50 + ["2014-12-15", "2015-02-15"] * 50, "datetime64[D]")
    days += np.arange(200) % 14
    (found,) = mix.find(np.repeat([0, 1], 100), days, {}, 2)
    assert (found.name, found.n, found.earlier) == ("December to February 2015", 100, 100)
    assert (found.grown, found.share, found.before, found.distance) == (1, 1.0, 0.0, 1.0)


def test_images_without_a_date_and_short_seasons_are_left_out():
    days = np.array(["2013-07-01"] * 50 + ["NaT"] * 50 + ["2014-07-01"] * 29, "datetime64[D]")
    assert mix.find(np.repeat([0, 1], [50, 79]), days, {}, 2) == []
    assert mix.find(np.zeros(0, int), np.zeros(0, "datetime64[D]"), {}, 2) == []


def bursts(rng: np.random.Generator, seasons: int, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Summers of one mix; on each day three animals, each in 5 to 20 frames."""
    mix_, predicted, when = rng.dirichlet(np.ones(8)), [], []
    for year in range(seasons):
        for day in rng.choice(90, days, replace=False):
            frames = rng.integers(5, 21, 3)
            predicted.append(np.repeat(rng.choice(8, 3, p=mix_), frames))
            when.append(np.full(frames.sum(), np.datetime64(f"{2008 + year}-06-01") + day))
    return np.concatenate(predicted), np.concatenate(when)


def test_bursts_of_the_same_animal_name_nothing_in_at_least_95_of_100_runs():
    rng = np.random.default_rng(3)
    assert sum(bool(mix.find(*bursts(rng, 4, 12), {}, 8)) for _ in range(100)) <= 5


def test_one_day_a_year_says_nothing_of_a_season():
    days = np.repeat(np.array(["2013-07-01", "2014-07-01"], "datetime64[D]"), 500)
    assert mix.find(np.repeat([0, 1], 500), days, {}, 2) == []


def test_how_likely_chance_is_agrees_with_all_the_ways_to_deal_the_days_out():
    rng = np.random.default_rng(7)
    counts, own = rng.multinomial(20, [0.5, 0.3, 0.2], 9), np.arange(9) < 4
    counts[own, 0] += 25
    shares = [counts[part].sum(axis=0) / counts[part].sum() for part in (own, ~own)]
    distance = np.abs(shares[0] - shares[1]).sum() / 2
    ways = [np.isin(np.arange(9), chosen) for chosen in combinations(range(9), 4)]
    as_far = np.mean(mix._distance(counts, np.array(ways)) >= distance - 1e-6)
    one = mix.Mix(None, 2014, 2, 1, 1, distance, 0, 1, 0, 1)
    assert as_far < 0.1
    assert mix._chance(one, counts, own, 20_000, rng) == pytest.approx(as_far, rel=0.4)
