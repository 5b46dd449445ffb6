import numpy as np
import pytest

from cellabel.drift import OnlineMMD, StreamBank, expected_run_time, false_alarm_share, run_length
from cellabel.drift._calibration import steady_threshold, tail_quantile
from cellabel.errors import InputError


def normal(rng, n):
    return rng.normal(size=(n, 8))


@pytest.fixture(scope="module")
def detector():
    fitted = OnlineMMD(64, 8)
    fitted.fit(normal(np.random.default_rng(0), 400))
    return fitted


def test_the_reported_run_length_is_the_promise_and_memoryless(detector):
    found = detector.report.run_length
    assert 57 < found.mean < 71 and found.ci[0] < 64 < found.ci[1]
    assert 0.9 < found.cv < 1.1
    hazard = np.array(detector.report.hazard[:8]) * 64
    assert (hazard > 0.65).all() and (hazard < 1.4).all()
    assert detector.report.icc is None and len(detector.report.thresholds) == 8
    assert detector.report.thresholds[-1] == detector.report.threshold


def test_fresh_streams_run_as_long_as_promised(detector):
    found = run_length(detector, normal, n_runs=400, seed=5)
    assert 54 < found.mean < 76 and found.ci[0] < found.mean < found.ci[1]
    assert detector.time == 0


def test_alarms_in_the_first_window_are_as_many_as_later(detector):
    rng = np.random.default_rng(8)
    early = 0
    for _ in range(600):
        detector.reset()
        early += any(step.drift for step in detector.update_many(normal(rng, 8)))
    assert early / 600 == pytest.approx(false_alarm_share(8, 64), abs=0.045)


def test_shifts_and_collapses_are_found_soon(detector):
    rng = np.random.default_rng(9)
    shift = np.zeros(8)
    shift[0] = 3.0
    for change, longest in [(lambda rows: rows + shift, 6.5), (lambda rows: rows * 0.5, 12.0)]:
        delays = []
        for _ in range(40):
            detector.reset()
            detector.update_many(normal(rng, 20))
            delays.append(
                next(s.time for s in detector.update_many(change(normal(rng, 300))) if s.drift) - 20
            )
        assert np.mean(delays) <= longest


def wells_of_tiles(rng, n, correlation=0.4, tiles=9):
    wells = -(-n // tiles)
    offsets = np.repeat(rng.normal(size=(wells, 8)), tiles, axis=0)[:n]
    return np.sqrt(correlation) * offsets + np.sqrt(1 - correlation) * rng.normal(size=(n, 8))


def test_correlated_tiles_keep_the_promise_only_with_groups():
    rows = wells_of_tiles(np.random.default_rng(1), 900)
    naive, grouped = OnlineMMD(128), OnlineMMD(128)
    report = naive.fit(rows)
    assert any("correlated" in warning for warning in report.warnings)
    report = grouped.fit(rows, groups=np.repeat(np.arange(100), 9))
    assert report.icc == pytest.approx(0.4, abs=0.06) and report.n_groups == 100
    assert run_length(naive, wells_of_tiles, n_runs=40).mean < 30
    assert 80 < run_length(grouped, lambda rng, n: wells_of_tiles(rng, n + 2)[:n], n_runs=60).mean < 260


def test_few_groups_and_small_references_warn():
    rng = np.random.default_rng(2)
    report = OnlineMMD(100, 4).fit(normal(rng, 80), groups=np.repeat(np.arange(10), 8))
    assert any("provisional" in warning for warning in report.warnings)
    report = OnlineMMD(1000, 10).fit(normal(rng, 40))
    assert any("true run length" in warning for warning in report.warnings)
    assert report.run_length.ci[1] > 2 * report.run_length.ci[0]


def test_the_smallest_reference_calibrates_and_one_less_is_refused():
    rng = np.random.default_rng(3)
    assert OnlineMMD(20, 10).fit(normal(rng, 19)).threshold > 0
    with pytest.raises(InputError, match="19"):
        OnlineMMD(20, 10).fit(normal(rng, 18))


@pytest.mark.parametrize("run_time", [1.001, 1e12])
@pytest.mark.parametrize("grouped", [False, True])
def test_absurd_run_times_calibrate_or_warn_but_never_break(run_time, grouped):
    rows = normal(np.random.default_rng(3), 45)
    report = OnlineMMD(run_time, 5).fit(rows, groups=np.arange(45) // 3 if grouped else None)
    assert np.isfinite(report.thresholds).all()
    assert report.warnings
    assert report.run_length.ci[0] < max(run_time, 1.1)
    if run_time < 4:
        assert any("at least 4" in warning for warning in report.warnings)


def test_a_long_window_keeps_the_promise_although_its_alarms_last_longer():
    report = OnlineMMD(64, 30).fit(normal(np.random.default_rng(4), 300))
    assert 56 < report.run_length.mean < 73


def test_several_windows_find_what_one_of_them_would():
    rng = np.random.default_rng(4)
    several = OnlineMMD(64, (2, 5, 15))
    report = several.fit(normal(rng, 400))
    assert 54 < report.run_length.mean < 76 and len(report.thresholds) == 15
    assert 48 < run_length(several, normal, n_runs=200, seed=1).mean < 84
    shift = np.zeros(8)
    shift[0] = 4.0
    several.reset()
    several.update_many(normal(rng, 20))
    assert next(s.time for s in several.update_many(normal(rng, 30) + shift) if s.drift) <= 25


def test_false_alarms_a_plate_and_run_times_are_two_ways_of_saying_one_thing():
    assert expected_run_time(96) == pytest.approx(1872, abs=1)
    assert false_alarm_share(96, expected_run_time(96, 0.03)) == pytest.approx(0.03)
    assert false_alarm_share(96, 128) == pytest.approx(0.53, abs=0.005)
    for bad in [(0, 0.05), (96, 0.0), (96, 1.0)]:
        with pytest.raises(InputError):
            expected_run_time(*bad)


def test_the_tail_beyond_the_data_is_extrapolated():
    rng = np.random.default_rng(5)
    values = rng.exponential(size=(4000, 50))
    assert tail_quantile(values.ravel(), 1e-3) == pytest.approx(np.log(1e3), rel=0.05)
    assert tail_quantile(values[:, 0], 1e-5) == pytest.approx(np.log(1e5), rel=0.2)
    assert steady_threshold(values, 100.0)[0] == pytest.approx(np.log(100), rel=0.03)
    assert steady_threshold(values, 1e5)[0] == pytest.approx(np.log(1e5), rel=0.1)


def test_a_bank_shares_one_promise_and_comes_back_from_one_file(tmp_path):
    rng = np.random.default_rng(6)
    bank = StreamBank(["nuclei", "er"], 50, window_size=5)
    reports = bank.fit({"nuclei": normal(rng, 60), "er": normal(rng, 60)}, model={"er": ["unet", 2]})
    assert bank["er"].expected_run_time == 100 and set(reports) == {"nuclei", "er"}
    observation = {"nuclei": np.zeros(8), "er": np.ones(8)}
    first = bank.update(observation, id="P1/A01")
    bank.save(tmp_path / "bank.npz")
    loaded = StreamBank.load(tmp_path / "bank.npz")
    assert loaded.fingerprint == bank.fingerprint and list(loaded) == ["nuclei", "er"]
    assert loaded.update({"nuclei": np.ones(8), "er": np.ones(8)}, id="P1/A01") == first
    assert loaded.update(observation) == bank.update(observation)
    times = [bank[name].time for name in bank]
    for bad in ({"nuclei": np.zeros(8)}, {"nuclei": np.zeros(8), "er": np.full(8, np.nan)}):
        with pytest.raises(InputError):
            bank.update(bad)
    assert [bank[name].time for name in bank] == times
    with pytest.raises(InputError):
        bank["golgi"]
    with pytest.raises(InputError):
        bank.fit({"nuclei": normal(rng, 60), "er": np.ones((60, 8))})
    assert bank.fingerprint == loaded.fingerprint


def test_a_bank_takes_blocks_and_states_of_all_streams_or_of_none():
    rng = np.random.default_rng(7)
    bank = StreamBank(["nuclei", "er"], 50, window_size=4)
    bank.fit({"nuclei": normal(rng, 40), "er": normal(rng, 40)})
    assert {name: report.n for name, report in bank.reports.items()} == {"nuclei": 40, "er": 40}
    start = bank.state_dict()
    rows = {name: normal(rng, 7) for name in bank}
    ids = [f"P1/{i}" for i in range(7)]
    steps = bank.update_many(rows, ids)
    bank.load_state_dict(start)
    for i in range(7):
        single = bank.update({name: rows[name][i] for name in bank}, id=ids[i])
        for name in bank:
            assert single[name].statistic == pytest.approx(steps[name][i].statistic, abs=1e-9)
    after = {name: state["checksum"] for name, state in bank.state_dict().items()}
    uneven = {"nuclei": normal(rng, 3), "er": normal(rng, 2)}
    hole = {"nuclei": normal(rng, 2), "er": np.full((2, 8), np.nan)}
    for refused in (
        lambda: bank.update_many(uneven),
        lambda: bank.update_many(hole),
        lambda: bank.update_many({"nuclei": normal(rng, 2), "er": normal(rng, 2)}, ids=["one"]),
        lambda: bank.load_state_dict({"nuclei": start["nuclei"]}),
        lambda: bank.load_state_dict({"nuclei": start["nuclei"], "er": start["nuclei"]}),
    ):
        with pytest.raises(InputError):
            refused()
        assert {name: state["checksum"] for name, state in bank.state_dict().items()} == after


def test_drift_needs_neither_torch_nor_tables():
    import subprocess
    import sys

    code = (
        "import sys, cellabel.drift\n"
        "print([m for m in ('torch', 'mlflow', 'pandas', 'skimage', 'sklearn', 'zarr') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
