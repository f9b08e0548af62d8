"""How growth is measured: what moves it, and what does not."""

import random

import pytest

from lablet_local.soak.trend import MOST_POINTS, after_warm_up, growth, slope, thinned


def test_of_a_line_it_is_the_lines_own_growth() -> None:
    line = [(float(at), 100 + 0.5 * at) for at in range(0, 1000, 15)]
    assert slope(line) == pytest.approx(0.5)
    assert growth(line) == pytest.approx(0.5 * line[-1][0])


def test_a_quarter_of_wild_points_does_not_move_it() -> None:
    chance = random.Random(1)
    line = [(float(at), 1e9 if chance.random() < 0.25 else 100 + 0.5 * at) for at in range(0, 6000, 15)]
    assert slope(line) == pytest.approx(0.5, rel=0.3)


def test_noise_alone_has_no_slope() -> None:
    chance = random.Random(2)
    noise = [(float(at), 100 + chance.gauss(0, 10)) for at in range(0, 6000, 15)]
    assert abs(growth(noise)) < 3


def test_a_saw_that_always_falls_back_does_not_grow() -> None:
    saw = [(float(at), float(at % 600)) for at in range(0, 6000, 15)]
    assert abs(growth(saw)) < 600 / 6


def test_many_points_are_thinned_to_medians_of_neighbours() -> None:
    points = [(float(at), 7.0) for at in range(10 * MOST_POINTS)]
    assert len(thinned(points)) == MOST_POINTS
    assert thinned(points)[0] == (4.5, 7.0)
    assert thinned(points[:3]) == points[:3]


def test_nothing_and_one_point_do_not_grow() -> None:
    assert growth([]) == 0.0
    assert growth([(1.0, 5.0)]) == 0.0


def test_the_warm_up_and_what_comes_after_the_load_are_left_out() -> None:
    points = [(float(at), 0.0) for at in (0, 199, 200, 1000, 1001)]
    assert [at for at, _ in after_warm_up(points, 1000, 0.2)] == [200.0, 1000.0]
