"""Options and distributions of sampling, mixtures, chunks, directories beside memory."""

from dataclasses import fields

import numpy as np
import pytest

from tests.replay.test_properties import assert_law
from twohot.replay import Batch, Field, Mixture, Replay, Schema

SCHEMA = Schema(
    {"position": Field("float32", (2,)), "goal": Field("float32", (2,))},
    Field("int16"),
    {"log_probability": Field("float32", nan=True), "skill": Field("uint8", (3,))},
)
LENGTHS = [1, 2, 3, 10, 29, 64, 7, 1, 40, 12, 5]


def trajectory(length, seed=0, task=0):
    generator = np.random.default_rng(seed)
    return {
        "observation": {
            "position": generator.standard_normal((length + 1, 2)).astype(np.float32),
            "goal": np.repeat(generator.standard_normal((1, 2)).astype(np.float32), length + 1, axis=0),
        },
        "action": generator.integers(1, 99, length).astype(np.int16),
        "reward": generator.standard_normal(length).astype(np.float32),
        "terminated": np.arange(length) == length - 1,
        "truncated": np.zeros(length, bool),
        "task": task,
        "step": {
            "log_probability": np.where(np.arange(length) % 3 == 1, np.nan, 1.5).astype(np.float32),
            "skill": generator.integers(1, 255, (length, 3), dtype=np.uint8),
        },
    }


def filled(lengths=LENGTHS, **options):
    replay = Replay.create(SCHEMA, **({"capacity_steps": 10_000, "seed": 5} | options))
    for seed, length in enumerate(lengths):
        replay.add(**trajectory(length, seed, task=seed % 3))
    return replay


def copy(batch):
    found = {}
    for field in fields(Batch):
        value = getattr(batch, field.name)
        items = value.items() if isinstance(value, dict) else [("", value)]
        found |= {f"{field.name}/{name}": np.asarray(item).copy() for name, item in items}
    return found


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def padded(array, first, rows, places, left):
    """`rows` rows of an array from `first` on (rows before row 0 are zero) among `places`."""
    zeros = np.zeros((1, *array.shape[1:]), array.dtype)
    taken = np.concatenate([zeros, array])[first + 1 : first + 1 + rows]
    room = np.zeros((places - rows, *array.shape[1:]), array.dtype)
    return np.concatenate([room, taken] if left else [taken, room])


@pytest.mark.parametrize("pad", ["right", "left"])
@pytest.mark.parametrize("window", ["anywhere", "start", "end"])
@pytest.mark.parametrize("lookahead", [0, 1, 4])
def test_every_row_of_a_window(pad, window, lookahead):
    replay, length = filled(), 6
    batch = replay.sample(60, length, pad=pad, window=window, lookahead=lookahead)
    starts, left = set(), pad == "left"
    for b in range(60):
        seed, start = int(batch.trajectory[b]), int(batch.start[b])
        source, steps = trajectory(LENGTHS[seed], seed), LENGTHS[seed]
        last = max(0, steps - length)
        assert start == {"start": 0, "end": last}.get(window, start)
        assert 0 <= start <= last
        starts.add((seed, start))
        real = min(steps - start, length + lookahead)
        counted = min(steps - start, length)
        places = length + lookahead
        for name in SCHEMA.observation:
            expected = padded(source["observation"][name], start, real + 1, places + 1, left)
            np.testing.assert_array_equal(batch.observation[name][b], expected)
        for name in SCHEMA.step:
            np.testing.assert_array_equal(batch.step[name][b], padded(source["step"][name], start, real, places, left))
        for name in ("action", "reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(batch, name)[b], padded(source[name], start, real, places, left))
        for name in ("action", "reward"):
            expected = padded(source[name], start - 1, real + 1, places + 1, left)
            np.testing.assert_array_equal(getattr(batch, f"previous_{name}")[b], expected)
        time = padded(np.arange(steps + 1, dtype=np.int32), start, real + 1, places + 1, left)
        np.testing.assert_array_equal(batch.time[b], time)
        mask = np.zeros(places, bool)
        offset = places - real if left else 0
        mask[offset : offset + counted] = True
        np.testing.assert_array_equal(batch.mask[b], mask)
    assert len(starts) > (20 if window == "anywhere" else 5)


def probabilities(replay, by, half_life, priority):
    lengths, tasks = replay.lengths(), replay.tasks()
    age = len(lengths) - 1 - np.arange(len(lengths))
    weight = {
        "trajectory": np.ones(len(lengths)),
        "step": lengths,
        "recency": 0.5 ** (age / half_life),
        "priority": priority,
        "task": 1 / np.array([(tasks == task).sum() for task in tasks]),
    }[by]
    return weight / weight.sum()


@pytest.mark.parametrize("protect", [False, True])
@pytest.mark.parametrize("by", ["trajectory", "step", "recency", "priority", "task"])
def test_sampling(by, protect):
    """The distribution of each way to draw, after evictions, and the probability that a batch gives."""
    replay = Replay.create(SCHEMA, capacity_trajectories=len(LENGTHS), seed=3)
    for seed, length in enumerate([50, 3, *LENGTHS]):
        replay.add(**trajectory(length, seed, task=seed % 4), protect=protect and seed % 3 == 1)
    ids = replay.ids()
    priority = 0.5 + np.arange(len(ids)) % 4
    assert replay.set_priorities(np.append(ids, 10**6), np.append(priority, 9.0)) == len(ids)
    np.testing.assert_array_equal(replay.table()["priority"], priority)
    expected = probabilities(replay, by, 3.0, priority)
    batch, counts = replay.batch(4096, 1), np.zeros(len(ids), int)
    place = {int(number): index for index, number in enumerate(ids)}
    for _ in range(30):
        replay.sample(4096, 1, by=by, half_life=3.0, out=batch)
        drawn = np.array([place[number] for number in batch.trajectory.tolist()])
        np.testing.assert_allclose(batch.probability, expected[drawn], rtol=1e-12)
        counts += np.bincount(drawn, minlength=len(ids))
    assert_law(counts, expected)


def test_the_default_half_life_is_a_quarter_of_what_is_stored():
    replay = filled()
    chosen = replay.sample(200, 1, by="recency").probability
    replay.random_state = filled().random_state
    np.testing.assert_array_equal(chosen, replay.sample(200, 1, by="recency", half_life=len(LENGTHS) / 4).probability)


def test_priorities_of_new_trajectories_and_bad_ones():
    replay = filled([1, 1, 1], capacity_trajectories=3)
    replay.set_priorities([1], [7])
    replay.add(**trajectory(2))
    assert replay.table()["priority"].tolist() == [7, 1, 7]
    for bad in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite and at least 0"):
            replay.set_priorities([2, 3], [5, bad])
    with pytest.raises(ValueError, match="as many priorities"):
        replay.set_priorities([2, 3], [5])
    assert replay.table()["priority"].tolist() == [7, 1, 7]
    replay.set_priorities(replay.ids(), np.zeros(3))
    state = replay.random_state
    with pytest.raises(RuntimeError, match="all priorities are 0"):
        replay.sample(1, 1, by="priority")
    np.testing.assert_array_equal(replay.random_state, state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_life": 0.0, "by": "recency"}, "half-life above 0"),
        ({"half_life": np.nan}, "half-life above 0"),
        ({"lookahead": -1}, "lookahead: expected an integer >= 0"),
        ({"pad": "both"}, "'right', 'left'; got 'both'"),
        ({"window": "middle"}, "window: expected one of 'anywhere', 'start', 'end'; got 'middle'"),
        ({"by": "age"}, "by: expected one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        filled().sample(2, 3, **options)


@pytest.mark.parametrize("by", ["trajectory", "step", "recency", "priority", "task"])
def test_memory_and_files_give_the_same_batches_for_any_threads(tmp_path, by):
    """Also above the size from which several threads pack, and above the one from which batches bypass the caches."""
    lengths = [*LENGTHS, 700]
    place = tmp_path / "replay"
    filled(lengths, directory=place, segment_bytes=5000).close()
    replays = [filled(lengths, threads=threads) for threads in (1, 2, 4)]
    replays += [Replay.open(place, seed=5, threads=threads) for threads in (1, 2, 4)]
    for sizes in ((7, 5), (2500, 60)):
        batches = [copy(replay.sample(*sizes, by=by, lookahead=3, pad="left")) for replay in replays]
        for batch in batches[1:]:
            assert_equal(batch, batches[0])
    assert sum(value.nbytes for value in batches[0].values()) > 4 << 20


def hindsight(drawn):
    """The goal becomes where the trajectory ended, and the reward says whether each step led there."""
    for b in range(len(drawn.length)):
        rows, steps = drawn.observation_rows(b), drawn.step_rows(b)
        reached = drawn.observation["position"][rows][-1]
        drawn.observation["goal"][rows] = reached
        drawn.reward[steps] = (drawn.observation["position"][rows][1:] == reached).all(axis=1)


@pytest.mark.parametrize("torch", [False, True])
def test_hindsight(torch):
    replay, twin = filled(), filled()
    batch = replay.batch(50, 8, torch=torch)
    replay.sample(50, 8, window="end", relabel=hindsight, out=batch)
    plain = twin.sample(50, 8, window="end")
    changed, before = copy(batch), copy(plain)
    for name in before:
        if name not in ("observation/goal", "reward/", "previous_reward/"):
            np.testing.assert_array_equal(changed[name], before[name], err_msg=name)
    real = before["mask/"].sum(axis=1)
    for b in range(50):
        goal = changed["observation/position"][b, real[b]]
        assert (changed["observation/goal"][b, : real[b] + 1] == goal).all()
        assert changed["reward/"][b].tolist() == [0] * (real[b] - 1) + [1] + [0] * (8 - real[b])
    stored = replay.get(3)
    np.testing.assert_array_equal(stored["reward"], trajectory(10, 3)["reward"])
    np.testing.assert_array_equal(replay.random_state, twin.random_state)

    def poison(drawn):
        drawn.reward[0] = np.nan

    with pytest.raises(ValueError, match="finite rewards"):
        replay.sample(2, 2, relabel=poison)


def test_step_fields_and_allowed_nans():
    replay = filled([4])
    columns = replay.get(0)
    assert np.isnan(columns["step"]["log_probability"]).tolist() == [False, True, False, False]
    again = filled([])
    assert again.add(**columns) == 0
    columns.pop("step")
    with pytest.raises(TypeError, match="step: expected a dict"):
        replay.add(**columns)
    with pytest.raises(ValueError, match="step: 'skill' is missing"):
        replay.add(**columns, step={"log_probability": np.zeros(4, np.float32)})
    writer = replay.writer(2)
    writer.begin({name: np.zeros((2, 2), np.float32) for name in ("position", "goal")})
    step = {"log_probability": np.full(2, np.nan, np.float32), "skill": np.ones((2, 3), np.uint8)}
    flags = (np.zeros(2, np.float32), np.ones(2, bool), np.zeros(2, bool))
    after = {"position": np.full((2, 2), np.nan, np.float32), "goal": np.zeros((2, 2), np.float32)}
    with pytest.raises(ValueError, match="'position' of environment 0 is NaN"):
        writer.append(np.zeros(2, np.int16), *flags, after, step=step)
    after["position"][:] = 1
    writer.append(np.zeros(2, np.int16), *flags, after, step=step)
    assert np.isnan(replay.get(2)["step"]["log_probability"]).all()


def test_a_mixture_draws_from_each_in_proportion_to_its_weight():
    replays = [filled([5] * 3), filled([6] * 4), filled([])]
    mixture = Mixture(replays, [1, 3, 0], seed=2)
    assert mixture.weights.tolist() == [0.25, 0.75, 0]
    counts = np.zeros(2, int)
    for _ in range(400):
        lengths = mixture.sample(20, 9, lookahead=1).mask.sum(axis=1)
        assert (np.diff(lengths) >= 0).all()  # in the order of the replays
        counts += [(lengths == 5).sum(), (lengths == 6).sum()]
    assert counts.sum() == 8000
    assert_law(counts, [0.25, 0.75])
    mixture.weights = [2, 0, 0]
    assert (mixture.sample(50, 9).mask.sum(axis=1) == 5).all()
    for weights in ([1, 2], [0, 0, 0], [1, -1, 1], [1, np.nan, 1]):
        with pytest.raises(ValueError, match="weights: expected 3 numbers"):
            mixture.weights = weights
    with pytest.raises(ValueError, match="same schema"):
        Mixture([replays[0], Replay.create(Schema({"x": Field("int8")}, Field("int8")), capacity_steps=9)], [1, 1])
    mixture.weights = [0, 0, 1]
    with pytest.raises(RuntimeError, match="replay is empty"):
        mixture.sample(1, 1)


def test_mixtures_repeat_and_their_loader_yields_what_they_sample():
    def make():
        return Mixture([filled(LENGTHS), filled([8, 9], seed=8)], [1, 1], seed=4)

    one, two = make(), make()
    options = {"by": "step", "lookahead": 2, "pad": "left"}
    for batch in one.loader(9, 4, batches=5, torch=True, **options):
        assert_equal(copy(batch), copy(two.sample(9, 4, **options)))
    state, before = one.random_state, [replay.random_state for replay in one.replays]
    first = copy(one.sample(9, 4))
    one.random_state = state
    for replay, words in zip(one.replays, before, strict=True):
        replay.random_state = words
    assert_equal(copy(one.sample(9, 4)), first)


@pytest.mark.parametrize("torch", [False, True])
def test_a_loader_takes_the_options_of_sample(torch):
    options = {"by": "recency", "half_life": 2.0, "window": "end", "lookahead": 3, "pad": "left", "relabel": hindsight}
    replay, twin = filled(), filled()
    for batch in replay.loader(6, 5, batches=4, torch=torch, **options):
        assert_equal(copy(batch), copy(twin.sample(6, 5, **options)))


@pytest.mark.parametrize("on_disk", [False, True])
def test_windows_of_chunks_keep_their_context(tmp_path, on_disk):
    schema = Schema({"t": Field("int32")}, Field("int32"))
    replay = Replay.create(schema, capacity_steps=1000, directory=tmp_path / "replay" if on_disk else None)
    for length, overlap in ((5, 0), (5, 5), (0, 0)):
        with pytest.raises(ValueError, match="chunk"):
            replay.writer(1, chunk_length=length, overlap=overlap)
    writer = replay.writer(1, chunk_length=8, overlap=3)
    no, yes = np.zeros(1, bool), np.ones(1, bool)
    writer.begin({"t": np.zeros(1, np.int32)})
    for t in range(1, 31):
        after = {"t": np.full(1, t, np.int32)}
        writer.append(np.full(1, t, np.int32), np.full(1, t, np.float32), yes if t == 30 else no, no, after)
    table = replay.table()
    assert table["origin"].tolist() == [0, 5, 10, 15, 20, 25]
    assert table["length"].tolist() == [8, 8, 8, 8, 8, 5]
    batch = replay.sample(400, 4)
    real = np.concatenate([batch.mask, np.ones((400, 1), bool)], axis=1)
    assert batch.mask.all()
    np.testing.assert_array_equal(batch.observation["t"], batch.time)
    np.testing.assert_array_equal(batch.previous_action, batch.time)
    np.testing.assert_array_equal(batch.previous_reward[real], batch.time[real])
    assert (batch.start[batch.trajectory != table["id"][0]] >= 1).all()
    assert batch.terminated.sum() == (batch.time[:, -1] == 30).sum() > 0
    path = tmp_path / "saved"
    replay.save(path)
    np.testing.assert_array_equal(Replay.load(path).table()["origin"], table["origin"])
