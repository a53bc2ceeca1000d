"""What compression of images saves and costs: the measurement behind the choice of libraries and level.

Frames are drawn: sprites that move over a textured background, as platform games have them, without and with noise in a
tenth of the pixels.
"""

from __future__ import annotations

import time

import numpy as np

from bench.harness.compare import Figures
from bench.harness.measure import interleaved
from twohot.replay import Field, Replay, Schema
from twohot.replay.schema import COMPRESSIONS

SIDE, SPRITE, LENGTH, BATCH = 64, 8, 256, 24
TRAJECTORIES, STEPS = 12, 400


def frames(noise: float, random: np.random.Generator) -> np.ndarray:
    """uint8 [STEPS + 1, 64, 64, 3]"""
    tiles = random.integers(0, 256, (SIDE // SPRITE, SIDE // SPRITE, 3), np.uint8)
    image = np.tile(tiles.repeat(SPRITE, 0).repeat(SPRITE, 1), (STEPS + 1, 1, 1, 1))
    for _ in range(6):
        sprite = random.integers(0, 256, (SPRITE, SPRITE, 3), np.uint8)
        places = np.cumsum(random.integers(-2, 3, (STEPS + 1, 2)), 0) % (SIDE - SPRITE)
        for t, (x, y) in enumerate(places.tolist()):
            image[t, x : x + SPRITE, y : y + SPRITE] = sprite
    noisy = random.random(image.shape) < noise
    image[noisy] = random.integers(0, 256, int(noisy.sum()), np.uint8)
    return image


def compression(noise: float) -> Figures:
    """For each codec: how many times smaller the data are, frames added in a second, and frames sampled in a second."""
    random = np.random.default_rng(0)
    images = [frames(noise, random) for _ in range(TRAJECTORIES)]
    flags = np.arange(STEPS) == STEPS - 1
    rest = (np.zeros(STEPS, np.int64), np.zeros(STEPS, np.float32), flags, np.zeros(STEPS, bool))
    figures, replays, providers = Figures(), {}, {}
    for codec in COMPRESSIONS:
        name = codec or "plain"
        schema = Schema({"image": Field("uint8", (SIDE, SIDE, 3), compression=codec)}, Field("int64"))
        replays[name] = replay = Replay.create(schema, capacity_steps=TRAJECTORIES * STEPS)
        figures.values[f"{name}: adding"] = []
        for image in images:
            start = time.perf_counter()
            replay.add({"image": image}, *rest)
            figures.values[f"{name}: adding"].append(STEPS / (time.perf_counter() - start))
        out = replay.batch(BATCH, LENGTH)

        def sampling(replay: Replay = replay, out=out) -> float:
            start = time.perf_counter()
            replay.sample(BATCH, LENGTH, out=out)
            return BATCH * LENGTH / (time.perf_counter() - start)

        providers[f"{name}: sampling"] = sampling
    size = replays["plain"].stats().bytes
    for name, replay in replays.items():
        if name != "plain":
            figures.values[f"{name}: times smaller"] = [size / replay.stats().bytes]
    for name, values in interleaved(providers, rounds=7).items():
        figures.values[name] = values.tolist()
    return figures
