"""What `twohot.replay` does, in plain Python lists: the truth of its property tests."""

import numpy as np


class ReplayModel:
    """A step is a tuple (action, reward, terminated, truncated); a trajectory (id, task, observations, steps)."""

    def __init__(self, environments, capacity_steps, capacity_bytes, row_bytes):
        self.capacity_steps, self.capacity_bytes, self.row_bytes = capacity_steps, capacity_bytes, row_bytes
        self.open, self.stored, self.evicted = [None] * environments, [], []
        self.next_id = 0

    def bytes(self, steps):
        """`row_bytes` lists (bytes of a row, rows beyond the number of steps); columns start on multiples of 64."""
        return sum(-(-(steps + extra) * row // 64) * 64 for row, extra in self.row_bytes)

    def fits(self, lengths):
        return sum(lengths) <= self.capacity_steps and sum(map(self.bytes, lengths)) <= self.capacity_bytes

    def begin(self, environment, observation, task):
        self.open[environment] = (task, [observation], [])

    def append(self, environment, step, observation):
        _, observations, steps = self.open[environment]
        observations.append(observation)
        steps.append(step)
        if step[2] or step[3]:
            self.finish(environment)

    def finish(self, environment):
        self.store(*self.open[environment])
        self.open[environment] = None

    def store(self, task, observations, steps):
        self.stored.append((self.next_id, task, observations, steps))
        self.next_id += 1
        while not self.fits([len(steps) for *_, steps in self.stored]):
            self.evicted.append(self.stored.pop(0))

    def cut(self):
        for environment, trajectory in enumerate(self.open):
            if trajectory is not None and trajectory[2]:
                trajectory[2][-1] = (*trajectory[2][-1][:3], True)
                self.finish(environment)
        self.discard()

    def discard(self):
        self.open = [None] * len(self.open)


def window(trajectory, start, length):
    """The row of a batch that holds `length` steps of `trajectory` from step `start` on."""
    _, _, observations, steps = trajectory
    zero_action, zero_observation = (
        np.zeros_like(steps[0][0]),
        {k: np.zeros_like(v) for k, v in observations[0].items()},
    )
    real = min(length, len(steps) - start)
    seen = [observations[start + i] if i <= real else zero_observation for i in range(length + 1)]
    taken = [steps[start + i] if i < real else (zero_action, 0.0, False, False) for i in range(length)]
    before = [
        steps[start + i - 1][:2] if i <= real and start + i > 0 else (zero_action, 0.0) for i in range(length + 1)
    ]
    names = ("action", "reward", "terminated", "truncated")
    return {
        "observation": {name: np.stack([row[name] for row in seen]) for name in zero_observation},
        "previous_action": np.stack([action for action, _ in before]),
        "previous_reward": np.array([reward for _, reward in before]),
        "time": np.array([start + i if i <= real else 0 for i in range(length + 1)]),
        "mask": np.arange(length) < real,
        **{name: np.stack([step[i] for step in taken]) for i, name in enumerate(names)},
    }


class DirectoryModel:
    """Trajectories by number: the protected ones, then the others, each oldest first; [length, priority] of each."""

    def __init__(self, capacity_steps):
        self.capacity_steps, self.largest = capacity_steps, 1.0
        self.kept, self.passing, self.lengths = {}, {}, {}

    def takes(self, length):
        return sum(steps for steps, _ in self.kept.values()) + length <= self.capacity_steps

    def add(self, number, length, protect):
        (self.kept if protect else self.passing)[number] = [length, self.largest]
        self.lengths[number] = length
        while self.passing and sum(steps for steps, _ in self.all().values()) > self.capacity_steps:
            del self.passing[next(iter(self.passing))]

    def set_priority(self, number, priority):
        self.all()[number][1] = priority
        self.largest = max(self.largest, priority)

    def has_read(self, numbers):
        """Whether a new reader may hold these: what is stored, behind evicted ones whose files are still there."""
        back = numbers[len(self.kept) : len(numbers) - len(self.passing)]
        fitting = sum(self.lengths[number] for number in numbers) <= self.capacity_steps
        return fitting and numbers == [*self.kept, *back, *self.passing] and back == sorted(set(back))

    def reopen(self, numbers):
        """What a new reader holds is what is stored from now on; priorities are not kept in files."""
        self.largest = 1.0
        self.kept = {number: [self.lengths[number], 1.0] for number in self.kept}
        self.passing = {number: [self.lengths[number], 1.0] for number in numbers[len(self.kept) :]}

    def all(self):
        return self.kept | self.passing

    def numbers(self):
        return list(self.all())

    def length(self, number):
        return self.all()[number][0]

    def priorities(self):
        return [priority for _, priority in self.all().values()]

    def protected(self):
        return [True] * len(self.kept) + [False] * len(self.passing)
