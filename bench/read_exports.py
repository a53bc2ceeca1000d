"""Whether what `twohot replay export` writes for Hugging Face datasets and LeRobot is read by their own readers.

    python -m bench.read_exports [FOLDER]    # FOLDER: where the environment of their packages is made, or is already

Their packages are installed into an environment of their own, with the torch of constraints.txt: of LeRobot the package
without its requirements (cameras, motors, simulators), but for those that its dataset imports. Prints what was read,
and fails where a number differs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from bench.harness.group import ROOT
from twohot.replay.formats import write_datasets, write_lerobot

PACKAGES = ("torch", "datasets")
ALONE = (
    *("lerobot==0.4.4", "torchvision==0.28.0", "accelerate", "av", "deepdiff", "draccus", "einops", "imageio"),
    *("jsonlines", "mergedeep", "mypy-extensions", "orderly-set", "pillow", "psutil", "pyyaml-include", "safetensors"),
    *("termcolor", "toml", "typing-inspect"),
)
"""Installed without what they require."""
READ = """
import sys
import numpy as np, torch
# The compiled part of torchvision may be made for another torch; only its transforms are needed.
register = torch.library.register_fake
torch.library.register_fake = lambda *given, **named: lambda function: function
import torchvision
torch.library.register_fake = register
import datasets, lerobot
from lerobot.datasets.lerobot_dataset import LeRobotDataset

folder = sys.argv[1]
expected = np.load(f"{folder}/expected.npz")
rows = datasets.load_dataset(f"{folder}/datasets", split="train").with_format("numpy")
for index, row in enumerate(rows):
    for name, found in row.items():
        np.testing.assert_array_equal(found, expected[f"{index}/{name}"], name)
print(f"datasets {datasets.__version__}: {len(rows)} trajectories with {rows.column_names}, all equal")

steps = LeRobotDataset("me/mine", root=f"{folder}/lerobot")
at = 0
for index in range(steps.num_episodes):
    length = len(expected[f"{index}/reward"])
    for step in range(length):
        item = steps[at + step]
        for ours, theirs in (
            ("observation/joints", "observation.joints"), ("observation/grid", "observation.grid"),
            ("action", "action"), ("reward", "next.reward"), ("terminated", "next.terminated"),
        ):
            np.testing.assert_array_equal(item[theirs].numpy(), np.squeeze(expected[f"{index}/{ours}"][step]), theirs)
        image = (item["observation.images.image"] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(image, expected[f"{index}/observation/image"][step])
        assert item["task"] == ("open the door" if expected[f"{index}/task"] == 3 else "task 0")
        assert item["episode_index"] == index and item["frame_index"] == step
        assert abs(item["timestamp"] - step / 10) < 1e-6
    at += length
assert at == len(steps)
window = LeRobotDataset("me/mine", root=f"{folder}/lerobot", delta_timestamps={"action": [0.0, 0.1]})
assert window[0]["action"].shape[0] == 2
print(f"lerobot {lerobot.__version__}: {steps.num_episodes} episodes, {len(steps)} steps, all equal")
"""


def environment(folder: Path) -> Path:
    """The Python of an environment with their packages, made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--constraint", ROOT / "constraints.txt", *PACKAGES], check=True)
        subprocess.run([*install, "--no-deps", *ALONE], check=True)
    return python


def trajectory(length: int, task: int) -> dict:
    """Random numbers of every kind of column."""
    stream = np.random.default_rng((length, task))
    rows = length + 1
    return {
        "observation": {
            "image": stream.integers(0, 256, (rows, 16, 20, 3), dtype=np.uint8),
            "joints": stream.standard_normal((rows, 4), np.float32),
            "grid": stream.integers(0, 9, (rows, 2, 3)).astype(np.int32),
        },
        "action": stream.standard_normal((length, 1), np.float32),
        "reward": stream.standard_normal(length, np.float32),
        "terminated": np.arange(length) == length - 1,
        "truncated": np.zeros(length, bool),
        "task": task,
        "step": {"logits": stream.standard_normal((length, 3), np.float32)},
    }


def main() -> None:
    trajectories = [trajectory(length, task) for length, task in ((5, 3), (2, 0), (40, 3))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_datasets(folder / "datasets", trajectories)
        write_lerobot(folder / "lerobot", trajectories, fps=10, tasks={3: "open the door"})
        expected = {}
        for index, each in enumerate(trajectories):
            columns = {f"observation/{name}": array for name, array in each["observation"].items()}
            columns |= {"step/logits": each["step"]["logits"], "task": each["task"]}
            columns |= {name: each[name] for name in ("action", "reward", "terminated", "truncated")}
            expected |= {f"{index}/{name}": array for name, array in columns.items()}
        np.savez(folder / "expected.npz", **expected)
        python = environment(Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "environment")
        caches = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "PATH": ""}
        subprocess.run([python, "-W", "ignore", "-c", READ, folder], check=True, env=caches, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
