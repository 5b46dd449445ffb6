import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel.drift import OnlineMMD
from cellabel.errors import InputError

WINDOW = 6


@pytest.fixture(scope="module")
def reference():
    return np.random.default_rng(1).normal(size=(80, 5)) + 300.0


@pytest.fixture(scope="module")
def stream():
    return np.random.default_rng(2).normal(size=(60, 5)) + 300.0


@pytest.fixture(scope="module")
def saved(reference, tmp_path_factory):
    detector = OnlineMMD(50, WINDOW)
    detector.fit(reference, model={"name": "nuclei", "version": 3})
    path = tmp_path_factory.mktemp("detector") / "detector.npz"
    detector.save(path)
    return path


@pytest.fixture
def detector(saved):
    return OnlineMMD.load(saved)


def kernel(a, b, bandwidths):
    squared = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=-1)
    return np.mean([np.exp(-squared / (2 * sigma**2)) for sigma in bandwidths], axis=0)


def median_sigma(x):
    squared = ((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=-1)
    return np.sqrt(np.median(squared[np.triu_indices(len(x), 1)]) / 2)


def brute_force(reference, window, bandwidths):
    n, m = len(reference), len(window)
    own = kernel(reference, reference, bandwidths)
    value = (own.sum() - np.trace(own)) / (n * (n - 1)) - 2 * kernel(window, reference, bandwidths).mean()
    if m > 1:
        within = kernel(window, window, bandwidths)
        value += (within.sum() - np.trace(within)) / (m * (m - 1))
    return value


def test_the_statistic_is_the_unbiased_mmd_of_a_brute_force_oracle_at_every_fill(detector, reference, stream):
    sigma = median_sigma(reference)
    for t, row in enumerate(stream, start=1):
        expected = brute_force(reference, stream[max(0, t - WINDOW) : t], [sigma])
        assert detector.update(row).statistic == pytest.approx(expected, abs=1e-10)


def test_an_array_of_bandwidths_means_the_mean_of_their_kernels(reference, stream):
    detector = OnlineMMD(30, 4, bandwidth=[1.0, 2.5, 6.0])
    detector.fit(reference)
    for t, row in enumerate(stream[:9], start=1):
        expected = brute_force(reference, stream[max(0, t - 4) : t], [1.0, 2.5, 6.0])
        assert detector.update(row).statistic == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("window_size", [WINDOW, (2, 5, 9)])
def test_blocks_of_any_size_equal_single_updates(reference, stream, window_size):
    single, blocks = OnlineMMD(40, window_size), OnlineMMD(40, window_size)
    single.fit(reference)
    blocks.fit(reference)
    shifted = np.concatenate([stream[:30], stream[30:] + 1.5])
    expected = [single.update(row) for row in shifted]
    found = []
    for start, stop in [(0, 1), (1, 3), (3, 3), (3, 20), (20, 60)]:
        found.extend(blocks.update_many(shifted[start:stop]))
    assert [step.time for step in found] == list(range(1, 61))
    np.testing.assert_allclose([s.statistic for s in found], [s.statistic for s in expected], atol=1e-9)
    assert [s.drift for s in found] == [s.drift for s in expected]
    assert [s.change_time for s in found] == [s.change_time for s in expected]
    assert [s.threshold for s in found] == [s.threshold for s in expected]
    later = single.update(stream[0]).statistic
    assert blocks.update(stream[0]).statistic == pytest.approx(later, abs=1e-9)


def test_a_stream_cut_anywhere_and_resumed_in_a_new_process_is_equal_bit_by_bit(detector, stream, tmp_path):
    whole = [detector.update(row, id=f"P1/{i}") for i, row in enumerate(stream[:25])]
    np.save(tmp_path / "stream.npy", stream)
    script = (
        "import sys, numpy as np\n"
        "from cellabel.drift import OnlineMMD\n"
        "path, start, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
        "stream = np.load(path + '/stream.npy')\n"
        "detector = OnlineMMD.load(path + '/detector.npz')\n"
        "for i in range(start, stop):\n"
        "    step = detector.update(stream[i], id=f'P1/{i}')\n"
        "    print(step.time, step.statistic.hex(), step.threshold.hex(), step.drift)\n"
        "detector.save(path + '/detector.npz')\n"
    )
    again = OnlineMMD.load(tmp_path_copy(detector, tmp_path))
    again.reset()
    lines = []
    fresh = OnlineMMD(50, WINDOW)
    fresh.fit(np.random.default_rng(1).normal(size=(80, 5)) + 300.0, model={"name": "nuclei", "version": 3})
    fresh.save(tmp_path / "detector.npz")
    for start, stop in [(0, 4), (4, 17), (17, 25)]:
        command = [sys.executable, "-c", script, str(tmp_path), str(start), str(stop)]
        lines += subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == [f"{s.time} {s.statistic.hex()} {s.threshold.hex()} {s.drift}" for s in whole]


def tmp_path_copy(detector, folder):
    path = folder / "copy.npz"
    detector.save(path)
    return path


def test_the_same_id_ticks_once_and_tells_its_first_step_again(detector, stream):
    first = [detector.update(row, id=f"P7/{i}") for i, row in enumerate(stream[:8])]
    assert detector.update(stream[20], id="P7/2") == first[2]
    assert detector.time == 8
    ids = ["P7/7", "new", "P7/0", "new", "newer"]
    steps = detector.update_many(stream[30:35], ids=ids)
    assert steps[0] == first[7] and steps[2] == first[0]
    assert steps[1] == steps[3] and steps[1].time == 9 and steps[4].time == 10
    detector.reset()
    assert detector.update(stream[0], id="P7/3") == first[3]
    assert detector.time == 0


def test_a_change_is_found_and_dated(detector, stream):
    steps = detector.update_many(np.concatenate([stream[:40], stream[40:] + 3.0]))
    first = next(step for step in steps[40:] if step.drift)
    assert first.time <= 44 and abs(first.change_time - 41) <= 2
    assert all(step.change_time is None for step in steps if not step.drift)


def test_an_alarm_does_not_reset_and_a_reset_starts_again_at_one(detector, stream):
    detector.update_many(stream[:20] + 5)
    assert detector.time == 20
    detector.reset()
    step = detector.update(stream[0])
    assert step.time == 1 and step.threshold == detector.report.thresholds[0]


def test_the_report_tells_the_thresholds_that_observations_are_compared_with(detector, stream):
    used = [step.threshold for step in detector.update_many(stream[: WINDOW + 1])]
    assert used[:WINDOW] == list(detector.report.thresholds) and used[WINDOW] == detector.report.threshold


def test_a_full_start_is_silent_until_the_window_is_full(reference, stream):
    detector = OnlineMMD(50, WINDOW, start="full")
    detector.fit(reference)
    steps = detector.update_many(stream[:12] + 8)
    assert [step.drift for step in steps] == [False] * (WINDOW - 1) + [True] * (13 - WINDOW)


def test_same_seed_same_bits_and_the_global_random_state_is_untouched(reference):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    reports = [OnlineMMD(60, 5, seed=4).fit(reference) for _ in range(2)]
    assert reports[0] == reports[1]
    assert (np.random.get_state()[1] == before).all()
    assert OnlineMMD(60, 5, seed=5).fit(reference).threshold != reports[0].threshold


def test_the_state_is_plain_and_moves_to_an_equal_detector(detector, saved, stream):
    detector.update_many(stream[:13], ids=[str(i) for i in range(13)])
    state = detector.state_dict()
    assert all(type(value) in (int, str, np.ndarray) for value in state.values())
    assert all(value.dtype != object for value in state.values() if isinstance(value, np.ndarray))
    other = OnlineMMD.load(saved)
    other.load_state_dict(state)
    assert [other.update(row) for row in stream[13:30]] == [detector.update(row) for row in stream[13:30]]
    assert other.update(stream[40], id="4") == detector.update(stream[41], id="4")


def test_a_foreign_truncated_or_edited_state_is_refused_and_nothing_changes(detector, reference, stream):
    detector.update_many(stream[:9])
    before = detector.state_dict()
    others = [
        OnlineMMD(51, WINDOW),
        OnlineMMD(50, WINDOW, seed=1),
        OnlineMMD(50, WINDOW, bandwidth=2.0),
    ]
    for other in others:
        other.fit(reference, model={"name": "nuclei", "version": 3})
    newer = OnlineMMD(50, WINDOW)
    newer.fit(reference, model={"name": "nuclei", "version": 4})
    moved = OnlineMMD(50, WINDOW)
    moved.fit(reference + 1e-6, model={"name": "nuclei", "version": 3})
    foreign = [other.state_dict() for other in [*others, newer, moved]]
    edited = {**before, "means": before["means"] + 1e-12}
    shorter = {**before, "rows": before["rows"][:-1]}
    missing = {name: value for name, value in before.items() if name != "lags"}
    for state in [*foreign, edited, shorter, missing, {}, {**before, "time": 3}]:
        with pytest.raises(InputError):
            detector.load_state_dict(state)
        assert detector.state_dict()["checksum"] == before["checksum"]


def test_a_damaged_file_is_refused(saved, tmp_path):
    data = saved.read_bytes()
    for number, broken in enumerate([b"", data[: len(data) // 2], data[:-1], data[:900] + b"x" + data[901:]]):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(broken)
        with pytest.raises(InputError):
            OnlineMMD.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        OnlineMMD.load(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    "arguments",
    [(1,), (0.5,), (float("nan"),), (float("inf"),), ("often",), (None,)]
    + [(50, size) for size in (1, 0, -3, 2.5, "10", (), (5, 1), True)]
    + [(50, 5, bandwidth) for bandwidth in ("mean", 0.0, -1.0, float("nan"), [], [1.0, 0.0])]
    + [(50, 5, "median", "late"), (50, 5, "median", "growing", -1), (50, 5, "median", "growing", 0.5)],
)
def test_meaningless_settings_are_refused(arguments):
    with pytest.raises(InputError):
        OnlineMMD(*arguments)


def bad_references(good):
    hole = good.copy()
    hole[3, 2] = np.nan
    endless = good.copy()
    endless[3, 2] = np.inf
    return [
        hole,
        endless,
        good[:, 0],
        good[None],
        good[:, :0],
        np.ones((50, 3)),
        good[: 2 * WINDOW - 2],
        good[:2],
        np.array([["a"] * 3] * 40),
        np.where(np.arange(80)[:, None] < 75, 1.0, good),
    ]


def test_references_that_cannot_serve_are_refused_and_the_detector_stays_as_it_was(
    detector, reference, stream
):
    detector.update_many(stream[:9])
    before, fingerprint = detector.state_dict()["checksum"], detector.fingerprint
    for bad in bad_references(reference):
        with pytest.raises(InputError):
            detector.fit(bad)
    with pytest.raises(InputError, match="group"):
        detector.fit(reference, groups=np.arange(80) // 10)
    with pytest.raises(InputError, match="one label a row"):
        detector.fit(reference, groups=[1, 2])
    with pytest.raises(InputError, match="no labels"):
        detector.fit(reference, groups=3)
    assert detector.state_dict()["checksum"] == before and detector.fingerprint == fingerprint


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bad_observations_are_refused_and_leave_no_trace(saved, data):
    detector = shared(saved)
    before = detector.state_dict()["checksum"]
    good = np.zeros(5)
    kind = data.draw(st.sampled_from(["value", "length", "rank", "text"]))
    if kind == "value":
        good[data.draw(st.integers(0, 4))] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e200]))
    elif kind == "length":
        good = np.zeros(data.draw(st.integers(0, 9).filter(lambda n: n != 5)))
    elif kind == "rank":
        good = np.zeros((data.draw(st.integers(1, 3)), 5))
    else:
        good = ["x"] * 5
    with pytest.raises(InputError):
        detector.update(good, id="bad")
    if kind != "rank":
        with pytest.raises(InputError):
            detector.update_many([np.zeros(5), good] if kind != "length" else [good, good], ids=["b", "c"])
    assert detector.state_dict()["checksum"] == before


_loaded = {}


def shared(path):
    if path not in _loaded:
        _loaded[path] = OnlineMMD.load(path)
        _loaded[path].update_many(np.full((8, 5), 300.0))
    return _loaded[path]


def test_complex_observations_are_refused_not_cut_to_their_real_part(detector):
    with pytest.raises(InputError, match="complex"):
        detector.update(np.zeros(5, complex))
    assert detector.time == 0


def test_a_state_or_a_place_that_is_none_is_refused(detector, tmp_path):
    with pytest.raises(InputError, match="no detector state"):
        detector.load_state_dict(None)
    with pytest.raises(InputError, match="folder does not exist"):
        detector.save(tmp_path / "missing" / "detector.npz")


def test_ids_must_be_texts_and_as_many_as_rows(detector, stream):
    with pytest.raises(InputError, match="one id"):
        detector.update_many(stream[:3], ids=["a", "b"])
    with pytest.raises(InputError, match="no text"):
        detector.update(stream[0], id=4)
    assert detector.time == 0


def test_an_unfitted_detector_says_so():
    detector = OnlineMMD(50)
    for call in (
        lambda: detector.update([1.0]),
        detector.state_dict,
        detector.reset,
        lambda: detector.fingerprint,
    ):
        with pytest.raises(InputError, match="call fit"):
            call()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=40), st.integers(0, 40))
def test_any_order_of_repeats_gives_each_id_one_step_and_survives_a_reload(saved, events, cut):
    rows = np.random.default_rng(3).normal(size=(16, 5)) + 300
    plain, resumed = OnlineMMD.load(saved), OnlineMMD.load(saved)
    first = {}
    for place, (number, _) in enumerate(events):
        step = plain.update(rows[number], id=str(number))
        assert first.setdefault(number, step) == step
        if place == cut:
            state = resumed.state_dict()
            resumed = OnlineMMD.load(saved)
            resumed.load_state_dict(state)
        assert resumed.update(rows[number], id=str(number)) == step
    assert plain.time == len(first)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 99))
def test_any_cutting_into_blocks_and_states_between_them_equals_single_updates(saved, sizes, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(sum(sizes), 5)) + 300 + 2.0 * (np.arange(sum(sizes)) > 25)[:, None]
    single, blocks = OnlineMMD.load(saved), OnlineMMD.load(saved)
    expected = [single.update(row) for row in rows]
    found = []
    for part in np.split(rows, np.cumsum(sizes)):
        found += blocks.update_many(part)
        state, blocks = blocks.state_dict(), OnlineMMD.load(saved)
        blocks.load_state_dict(state)
    assert [step._replace(statistic=0) for step in found] == [s._replace(statistic=0) for s in expected]
    np.testing.assert_allclose([s.statistic for s in found], [s.statistic for s in expected], atol=1e-9)


@pytest.mark.parametrize("bandwidth", ["median", [0.5, 3.0]])
def test_blocks_against_a_large_reference_agree_to_a_ten_millionth(bandwidth):
    rng = np.random.default_rng(5)
    detector = OnlineMMD(50, 3, bandwidth)
    detector.fit(rng.normal(size=(600, 3)))
    rows = np.concatenate([rng.normal(size=(40, 3)), np.full((1, 3), 1e60), rng.normal(size=(40, 3)) + 2])
    expected = [detector.update(row) for row in rows]
    detector.reset()
    found = detector.update_many(rows)
    np.testing.assert_allclose([s.statistic for s in found], [s.statistic for s in expected], atol=3e-8)
    assert [step.drift for step in found] == [step.drift for step in expected]


def test_a_loaded_detector_goes_on_with_the_very_numbers_it_was_saved_with(detector, saved):
    content = detector.to_content()
    again = OnlineMMD.load(saved).to_content()
    assert content["self_similarity"].hex() == again["self_similarity"].hex()
    assert {name for name in content} == {name for name in again}


def test_a_large_offset_costs_no_digits(stream):
    reference = np.random.default_rng(1).normal(size=(60, 5))
    near, far = OnlineMMD(50, 5), OnlineMMD(50, 5)
    near.fit(reference)
    far.fit(reference + 2.0**20)
    for row in stream[:12] - 300.0:
        assert far.update(row + 2.0**20).statistic == pytest.approx(near.update(row).statistic, abs=1e-7)
