"""Draw the pictures of docs/xgrid.md: four worlds, and an expert that plays.

python -m bench.xgrid_pictures
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from bench.baselines.xgrid_expert import Expert
from bench.harness.group import ROOT
from twohot.envs.xgrid import XGridVector

FIGURES = ROOT / "docs" / "figures"
GAP = 16


def main() -> None:
    worlds = []
    for name, rooms, locked in (("small", 1, False), ("medium", 2, False), ("medium", 4, True), ("deep", 9, False)):
        vector = XGridVector(1, name, rooms=rooms, height=16, width=16, locked=locked)
        vector.reset(seed=rooms)
        worlds.append(np.pad(vector.render()[0][::2, ::2], ((0, 0), (0, GAP), (0, 0)), constant_values=255))
    picture = Image.fromarray(np.concatenate(worlds, 1)[:, :-GAP])
    picture.quantize(256).save(FIGURES / "xgrid_worlds.png", optimize=True)

    vector = XGridVector(1, "medium", rooms=2, height=9, width=13, show_carried=True, autoreset_mode="Disabled")
    vector.reset(seed=6)
    expert = Expert(vector, 0)
    frames = [frame[::2, ::2] for frame in expert.play(draw=True)]
    print(vector.rule_set(0), f"{len(frames) - 1} steps", sep="\n")
    vector.gif(str(FIGURES / "xgrid_expert.gif"), [*frames, *frames[-1:] * 8])


if __name__ == "__main__":
    main()
