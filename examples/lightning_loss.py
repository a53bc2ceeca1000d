"""The loss in PyTorch Lightning: a value network that classifies returns of any size. Seconds on one core.

    pip install lightning
    python examples/lightning_loss.py [--epochs 5]

Targets spread over six orders of magnitude: a squared error sees the largest alone, classes over symlog bins see all.
"""

import argparse

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from twohot.losses import BinExpectation, TwoHotCrossEntropy, ValueBins

BINS = ValueBins.amago2(count=128)


class ValueNetwork(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, BINS.count)
        )
        self.loss, self.value = TwoHotCrossEntropy(BINS), BinExpectation(BINS)

    def forward(self, x: Tensor) -> Tensor:  # values, in units of the return
        return self.value(self.layers(x))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, returns = batch
        return self.loss(self.layers(x), returns)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def sample(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs [n, 2], and returns [n] from 0.01 to 10,000 of either sign."""
    x = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return x, x[:, 1].sign() * 10 ** (3 * x[:, 0] + 1)


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(*sample(arguments.rows, 0)), batch_size=128, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    network = ValueNetwork()
    trainer.fit(network, data)
    x, returns = sample(2000, 1)
    with torch.no_grad():
        ratio = (network(x) / returns).clamp(1e-3, 1e3)
    close = ((ratio > 0.67) & (ratio < 1.5)).float().mean().item()
    print(f"{close:.0%} of new returns, from 0.01 to 10,000, are predicted within a factor of 1.5")
    return close


if __name__ == "__main__":
    main()
