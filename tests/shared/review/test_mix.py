"""Class mix: a season is held against the same season of earlier years, and nothing else."""

import numpy as np
import pytest

from shared.review import mix

MONTHS = np.arange("2013-01", "2016-01", dtype="datetime64[M]")


def images(rng: np.random.Generator, each: int = 60) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """60 images a month and camera over three years; summers have another mix than winters, cameras too."""
    days = np.repeat(MONTHS.astype("datetime64[D]"), 2 * each)
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
    (found,) = mix.find(np.repeat([0, 1], 100), days, {}, 2)
    assert (found.name, found.n, found.earlier) == ("December to February 2015", 100, 100)
    assert (found.grown, found.share, found.before, found.distance) == (1, 1.0, 0.0, 1.0)


def test_images_without_a_date_and_short_seasons_are_left_out():
    days = np.array(["2013-07-01"] * 50 + ["NaT"] * 50 + ["2014-07-01"] * 29, "datetime64[D]")
    assert mix.find(np.repeat([0, 1], [50, 79]), days, {}, 2) == []
    assert mix.find(np.zeros(0, int), np.zeros(0, "datetime64[D]"), {}, 2) == []


def test_chance_alone_names_nothing_in_at_least_95_of_100_runs():
    rng = np.random.default_rng(3)
    days = np.array([f"{year}-07-01" for year in range(2006, 2016) for _ in range(40)], "datetime64[D]")
    named = sum(bool(mix.find(rng.choice(12, 400, p=rng.dirichlet(np.ones(12))), days, {}, 12)) for _ in range(100))
    assert named <= 5
