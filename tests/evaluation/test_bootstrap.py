"""Bootstrap sums, medians and intervals against plain loops, and whether intervals cover what they say. Synthetic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, poisson

from geosieve.evaluation.bootstrap import Part, cell_sums, interval, poisson_counts
from geosieve.evaluation.estimates import Plan, estimate
from geosieve.evaluation.medians import sample_medians, windows
from geosieve.evaluation.scored import Answers, Scored, Stratum
from geosieve.runtime.errors import InputError

PLAN = Plan(("geoestimation", "osv5m", "pigeon", "geoclip", "g3"), 400, 1, 0.95)


def random_keys(n: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).integers(0, 2**63, n).astype(np.uint64))


def scored(n: int, seed: int = 0, systems: int = 1, values: int = 3) -> Scored:
    """Synthetic images: distances of a common part and a system's own, 1 % missing, three strata of random values."""
    rng = np.random.default_rng(seed)
    common = 4 + 2 * rng.standard_normal(n)
    answers = {}
    for k in range(systems):
        km = np.minimum(np.exp(common + 0.3 * rng.standard_normal(n) + 0.2 * k), 20_000)
        km[rng.random(n) < 0.01] = np.nan
        answers[f"system{k}"] = Answers(km / 6371, km * 1.001, km**1.5, rng.random((n, 4)) < 0.5)
    strata = tuple(
        Stratum(f"s{k}", tuple(f"v{v}" for v in range(values)), rng.integers(0, values, n).astype(np.int32))
        for k in range(2)
    )
    return Scored(random_keys(n, seed), answers, strata, rng.random((n, 4)) < 0.9)


def figure(figures: pd.DataFrame, metric: str, protocol: str, **where: object) -> pd.Series:
    facts = {"metric": metric, "protocol": protocol, "stratum": "all", **where}
    found = figures[figures["compared_to"].isna() if "compared_to" not in where else figures["compared_to"].notna()]
    found = found[found["balanced_by"].isna() if "balanced_by" not in where else found["balanced_by"].notna()]
    for name, value in facts.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_counts_are_poisson_and_independent() -> None:
    counts = poisson_counts(random_keys(4000), 7, 1000)
    observed = np.bincount(counts.astype(int).ravel(), minlength=8)[:8]
    expected = poisson.pmf(np.arange(8), 1) * counts.size
    np.testing.assert_allclose(observed / counts.size, expected / counts.size, atol=1.5e-5 + 4 * 0.5 / 2000)
    np.testing.assert_allclose(observed[5:] / counts.size, expected[5:] / counts.size, atol=2e-5)
    assert chisquare(observed[:5], expected[:5] / expected[:5].sum() * observed[:5].sum()).pvalue > 1e-4
    assert abs(counts.mean() - 1) < 0.002 and abs(counts.var() - 1) < 0.005
    of_images, of_samples = np.corrcoef(counts[:300]), np.corrcoef(counts[:, :300].T)
    for correlation, n in ((of_images, 1000), (of_samples, 4000)):
        off = correlation[~np.eye(300, dtype=bool)]
        assert np.abs(off).max() < 6 / np.sqrt(n) and abs(off.std() * np.sqrt(n) - 1) < 0.05


@given(st.permutations(range(50)), st.integers(0, 2**62), st.integers(1, 50))
def test_counts_follow_the_image_and_the_seed_alone(order: list[int], seed: int, some: int) -> None:
    keys = random_keys(50)
    whole = poisson_counts(keys, seed, 101)
    np.testing.assert_array_equal(poisson_counts(keys[order[:some]], seed, 101), whole[order[:some]])
    assert np.any(poisson_counts(keys, seed + 1, 101) != whole)


@settings(max_examples=20)
@given(st.integers(1, 9000), st.integers(1, 5), st.integers(0, 1000))
def test_sums_equal_a_loop_over_cells(n: int, n_cells: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys, cells = random_keys(n, seed), rng.integers(0, n_cells, n).astype(np.int32)
    matrix, own = rng.integers(0, 2, (n, 3)).astype(float), rng.integers(0, 2, (n, 1)).astype(float)
    part = Part(cells, n_cells, 4, lambda rows: own[rows])
    other = Part(np.zeros(n, np.int32), 1, 3)
    sums, total = cell_sums(keys, lambda rows: matrix[rows], [part, other], seed, 40)
    counts = poisson_counts(keys, seed, 40)
    for cell in range(n_cells):
        members = cells == cell
        both = np.hstack([matrix, own])[members]
        np.testing.assert_array_equal(sums.point[cell], both.sum(axis=0))
        np.testing.assert_array_equal(sums.samples[cell], both.T @ counts[members])
    np.testing.assert_array_equal(total.samples[0], sums.samples[:, :3].sum(axis=0))


def slow_median(values: np.ndarray, counts: np.ndarray, buckets: np.ndarray, balanced: bool) -> float:
    """Median of the values repeated as often as counted; balanced: each repeated so that buckets hold the same."""
    if not balanced:
        return float(np.median(np.repeat(values, counts.astype(int))))
    totals = {b: int(counts[buckets == b].sum()) for b in set(buckets.tolist())}
    common = int(np.lcm.reduce([t for t in totals.values() if t]))
    weights = [int(c) * common // totals[b] if totals[b] else 0 for c, b in zip(counts, buckets.tolist(), strict=True)]
    return float(np.median(np.repeat(values, weights)))


@settings(max_examples=60)
@given(st.integers(3, 400), st.booleans(), st.integers(0, 10_000))
def test_medians_of_samples_equal_those_of_repeated_values(n: int, balanced: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 40, n) * 1.5  # with ties
    buckets = rng.choice(3, n, p=[0.7, 0.2, 0.1]).astype(np.int32)
    found = windows(np.argsort(values, kind="stable"), np.zeros(n, np.int32), buckets, 1, balanced)
    rows = found.rows[0]
    counts = poisson_counts(random_keys(n, seed), seed, 30)
    below = np.array([counts[found.below & (buckets == b)].sum(axis=0) for b in range(3)], float)
    totals = np.array([counts[buckets == b].sum(axis=0) for b in range(3)], float)
    medians = sample_medians(values[rows], counts[rows], buckets[rows], below, totals, balanced)
    for sample in range(30):
        if totals[:, sample].sum():
            assert medians[sample] == slow_median(values, counts[:, sample], buckets, balanced)
        else:
            assert np.isnan(medians[sample])


def test_a_window_is_small_and_the_median_lies_in_it() -> None:
    values = np.random.default_rng(0).random(100_000)
    found = windows(np.argsort(values), np.zeros(values.size, np.int32), np.zeros(values.size, np.int32), 1, False)
    assert found.rows[0].size < 2500
    window = values[found.rows[0]]
    assert window[0] < np.median(values) < window[-1]
    assert np.all(values[found.below] < window[0])


def test_interval_leaves_out_samples_without_a_value() -> None:
    samples = np.array([[3.0, np.nan, 1.0, 2.0, np.nan], [np.nan] * 5, [1.0, 1.0, np.inf, np.inf, np.inf]])
    low, high = interval(samples, 0.9)
    np.testing.assert_allclose(low[:1], np.quantile([1, 2, 3], 0.05))
    np.testing.assert_allclose(high[:1], np.quantile([1, 2, 3], 0.95))
    assert np.isnan(low[1]) and np.isnan(high[1])
    assert low[2] == 1 and high[2] == np.inf


def test_figures_equal_plain_arithmetic() -> None:
    data = scored(3000)
    answers = data.systems["system0"]
    figures = estimate(data, PLAN)
    km = answers.angle * 6371
    for threshold in (1.0, 25.0, 200.0, 750.0, 2500.0):
        row = figure(figures, "recall", "geoestimation", threshold_km=threshold)
        assert row["value"] == np.sum(km <= threshold) / 3000
        assert (row["n"], row["missing"]) == (3000, np.isnan(km).sum())
    assert figure(figures, "mean_km", "osv5m")["value"] == pytest.approx(np.nanmean(km))
    assert figure(figures, "mean_km", "pigeon")["value"] == pytest.approx(np.nanmean(answers.angle * 6378.137))
    median = np.median(np.where(np.isnan(answers.geodesic_km), np.inf, answers.geodesic_km))
    assert figure(figures, "median_km", "g3")["value"] == pytest.approx(median)
    score = np.nan_to_num(5000 * np.exp(-km / 1492.7)).mean()
    assert figure(figures, "geoscore", "osv5m")["value"] == pytest.approx(score)
    named = data.named[:, 2]
    row = figure(figures, "hit_area", "reverse_geocoder")
    assert row["value"] == pytest.approx(np.sum(answers.hits[:, 2]) / named.sum()) and row["n"] == named.sum()
    stratum = data.strata[0]
    for code, value in enumerate(stratum.values):
        members = stratum.codes == code
        row = figure(figures, "recall", "g3", stratum="s0", stratum_value=value, threshold_km=200.0)
        assert row["value"] == np.mean(answers.geodesic_km[members] < 200)
        row = figure(figures, "median_km", "osv5m", stratum="s0", stratum_value=value)
        assert row["value"] == pytest.approx(np.median(np.where(np.isnan(km), np.inf, km)[members]))


def test_balanced_figures_weigh_every_bucket_the_same() -> None:
    data = scored(5000)
    figures = estimate(data, Plan(("osv5m",), 200, 0, 0.9, balance="s0"))
    km, codes = data.systems["system0"].angle * 6371, data.strata[0].codes
    row = figure(figures, "recall", "osv5m", balanced_by="s0", threshold_km=200.0)
    assert row["value"] == pytest.approx(np.mean([np.mean(km[codes == c] < 200) for c in range(3)]))
    other = data.strata[1].codes == 1
    row = figure(figures, "recall", "osv5m", balanced_by="s0", stratum="s1", stratum_value="v1", threshold_km=200.0)
    assert row["value"] == pytest.approx(np.mean([np.mean(km[other & (codes == c)] < 200) for c in range(3)]))
    assert row["low"] < row["value"] < row["high"]


def test_balanced_figures_are_those_of_the_images_in_buckets() -> None:
    """Images without a value of the balancing stratum might as well not be there; elsewhere they count as ever."""
    data = scored(2000, systems=2)
    first, second = data.strata
    plan, some = Plan(("osv5m",), 100, 0, 0.9, balance="s0"), first.codes < 2
    blank = Scored(data.keys, data.systems, (Stratum("s0", first.values, first.codes, blanks=1), second), data.named)
    held = Scored(
        data.keys[some],
        {
            name: Answers(a.angle[some], a.geodesic_km[some], a.area_km2[some], a.hits[some])
            for name, a in data.systems.items()
        },
        (Stratum("s0", ("v0", "v1"), first.codes[some]), Stratum("s1", second.values, second.codes[some])),
        data.named[some],
    )
    found, plain, without = (estimate(one, plan) for one in (blank, data, held))
    for whole, expected, balanced in ((found, plain, False), (found, without, True)):
        rows, wanted = (f[f["balanced_by"].notna() == balanced].reset_index(drop=True) for f in (whole, expected))
        # Sums of distances in samples are of single precision, added in other blocks.
        pd.testing.assert_frame_equal(rows, wanted, rtol=1e-4, atol=1e-3)


def test_sums_larger_than_the_memory_for_them_are_refused() -> None:
    """Two strata of 40 values, and 40 buckets: 3,240 cells, of four systems 5 GB at 10,000 samples."""
    data = scored(500, systems=4, values=40)
    with pytest.raises(InputError, match="3240 cells and 10000 samples"):
        estimate(data, Plan(("osv5m",), 10_000, 0, 0.9, balance="s0"))


def test_a_system_that_answers_nothing_misses_everywhere() -> None:
    n = 50
    nothing = Answers(np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan), np.zeros((n, 4), bool))
    figures = estimate(Scored(random_keys(n), {"x": nothing}, (), np.ones((n, 4), bool)), PLAN)
    assert (figures[figures["metric"].isin(["recall", "area_recall", "aurc", "geoscore"])]["value"] == 0).all()
    assert figures[figures["metric"].isin(["median_km", "mean_km"])]["value"].isna().all()
    assert (figures["missing"] == n).all()


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """200 synthetic test sets of a population whose recall at 25 km and median are known."""
    plan, covered = Plan(("osv5m",), 200, 0, 0.9), {"recall": 0, "median_km": 0}
    truth = {"recall": 1 - np.exp(-0.25), "median_km": 100 * np.log(2)}  # exponential distances, mean 100 km
    for seed in range(200):
        km = np.random.default_rng(seed).exponential(100, 300)
        data = Scored(random_keys(300, seed), {"x": Answers(km / 6371, km, None, None)}, (), None)
        figures = estimate(data, plan)
        for metric, value in truth.items():
            where = {"threshold_km": 25.0} if metric == "recall" else {}
            row = figure(figures, metric, "osv5m", **where)
            covered[metric] += row["low"] <= value <= row["high"]
    # 90 % of 200 are 180; four standard errors are 17.
    assert all(163 <= times <= 197 for times in covered.values()), covered


def test_paired_differences_of_like_systems_are_narrower_than_their_own_intervals() -> None:
    figures = estimate(scored(4000, systems=2), PLAN)
    for metric, protocol, where in (
        ("recall", "geoestimation", {"threshold_km": 200.0}), ("median_km", "g3", {}), ("aurc", "recall_vs_area", {}),
    ):  # fmt: skip
        own = [figure(figures, metric, protocol, system=f"system{k}", **where) for k in (0, 1)]
        paired = figure(figures, metric, protocol, system="system1", compared_to="system0", **where)
        assert paired["value"] == pytest.approx(own[1]["value"] - own[0]["value"])
        unpaired = np.hypot(*(row["high"] - row["low"] for row in own))
        assert paired["high"] - paired["low"] < 0.7 * unpaired


def test_differences_of_distances_are_of_the_images_that_both_answered() -> None:
    """One system leaves out the hard images, so that its own mean is the better one although it is always worse."""
    data = scored(900, systems=5)
    km = data.systems["system0"].angle * 6371
    hard = np.nan_to_num(km, nan=0) > 300
    worse = np.where(hard, np.nan, km + 10)
    data.systems["picky"] = Answers(worse / 6371, worse, None, None)
    figures = estimate(data, Plan(("osv5m",), 100, 0, 0.9, baseline="system0"))
    assert set(figures["compared_to"].dropna()) == {"system0"}
    assert set(figures[figures["compared_to"].notna()]["system"]) == {*(f"system{k}" for k in range(1, 5)), "picky"}
    own = [figure(figures, "mean_km", "osv5m", system=name)["value"] for name in ("system0", "picky")]
    assert own[1] < own[0]
    both = ~np.isnan(worse)
    for metric in ("mean_km", "median_answered_km"):
        row = figure(figures, metric, "osv5m", system="picky", compared_to="system0")
        assert [row["value"], row["low"], row["high"]] == pytest.approx(
            [10] * 3, rel=1e-3 if metric == "mean_km" else 1e-9
        )
        assert row["n"] == both.sum()
        for name, answered in (("system0", km), ("picky", worse)):
            alone = figure(figures, metric, "osv5m", system=name)
            measure = np.nanmean if metric == "mean_km" else np.nanmedian
            assert (alone["value"], alone["n"]) == (pytest.approx(measure(answered)), (~np.isnan(answered)).sum())
    stratum, value = data.strata[0], 1
    inside = both & (stratum.codes == value)
    other = data.systems["system3"].angle * 6371
    found = estimate(data, Plan(("osv5m",), 100, 0, 0.9, balance="s1", baseline="picky"))
    row = figure(found, "mean_km", "osv5m", system="system3", compared_to="picky", stratum="s0", stratum_value="v1")
    inside &= ~np.isnan(other)
    assert row["value"] == pytest.approx((other - worse)[inside].mean()) and row["n"] == inside.sum()


def test_a_system_compared_with_itself_differs_by_nothing() -> None:
    data = scored(500)
    twice = Scored(data.keys, {"a": data.systems["system0"], "b": data.systems["system0"]}, data.strata, data.named)
    figures = estimate(twice, PLAN)
    differences = figures[figures["compared_to"].notna()]
    assert len(differences) and (differences["value"] == 0).all()
    shares = differences["metric"].str.contains("recall|curve|hit|median")
    assert (differences[shares][["low", "high"]] == 0).all(axis=None)
    # Sums of distances are of single precision in samples.
    np.testing.assert_allclose(differences[["low", "high"]], 0, atol=1e-3)
