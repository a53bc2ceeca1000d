"""Linear layers: sigma-reparametrised, and the plain multi-layer perceptron."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.kernels.backend import without_autocast
from twohot.nets.packed import PackedMLP


class SigmaLinear(nn.Module):
    """y = (g / sigma(W)) W x + b, where sigma is the spectral norm (Zhai et al. 2023, arXiv 2303.06296).

    sigma is estimated as u^T W v by power iteration; u and v are buffers without gradient, exact at the start
    and brought up to date by `iterate`, once per gradient step. A forward pass changes nothing.

    Args:
        inputs, outputs: sizes of x and y. bias: whether b exists.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.gain = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        u, _, v = torch.linalg.svd(self.weight.detach(), full_matrices=False)
        self.register_buffer("u", u[:, 0].clone())
        self.register_buffer("v", v[0].clone())
        self._folded: tuple[tuple[int, ...], Tensor] | None = None

    @torch.no_grad()
    def iterate(self) -> None:
        """One step of power iteration on u and v."""
        self.u.copy_(functional.normalize(self.weight @ self.v, dim=0))
        self.v.copy_(functional.normalize(self.weight.T @ self.u, dim=0))

    def effective_weight(self) -> Tensor:
        """[outputs, inputs] g / sigma(W) W, differentiable in g and W."""
        with without_autocast(self.weight.device):
            sigma = torch.dot(self.u, self.weight @ self.v)
            return self.weight * (self.gain / sigma)

    @torch.no_grad()
    def folded_weight(self) -> Tensor:
        """`effective_weight` without gradient, computed once per version of the parameters, for rollouts.

        Versions are torch's own count of in-place changes. A fused optimiser does not count its own: whoever uses one
        calls `torch.autograd.graph.increment_version` on the parameters after each step.
        """
        if torch.compiler.is_compiling():
            return self.effective_weight()
        tensors = (self.weight, self.gain, self.u, self.v)
        version = tuple(number for tensor in tensors for number in (tensor.data_ptr(), tensor._version))
        if self._folded is None or self._folded[0] != version:
            self._folded = (version, self.effective_weight())
        return self._folded[1]

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] to [..., outputs]."""
        return functional.linear(x, self.effective_weight(), self.bias)

    def step(self, x: Tensor) -> Tensor:
        """As `forward`, without gradient, with the folded weight."""
        return functional.linear(x, self.folded_weight(), self.bias)


class MLP(nn.Sequential):
    """Linear layers with leaky ReLU between them: `layers` hidden ones of `hidden` units, then one to `outputs`."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int) -> None:
        sizes = [inputs, *[hidden] * layers]
        modules: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            modules += [nn.Linear(before, after), nn.LeakyReLU(inplace=True)]
        super().__init__(*modules, nn.Linear(sizes[-1], outputs))
        self._packed = PackedMLP()

    @property
    def layers(self) -> list[nn.Linear]:
        """The linear ones, in order."""
        return [module for module in self if isinstance(module, nn.Linear)]

    def step(self, x: Tensor, norm: nn.LayerNorm | None = None, last: int | None = None) -> Tensor:
        """As `forward`, x [B, inputs] to [B, outputs]: native for few rows where no gradient is wanted.

        Args:
            norm: what follows the last layer, if anything. last: how many outputs to give, the last ones; None for all.
        """
        layers = self.layers
        if self._packed.fits(layers, x, norm):
            return self._packed.run(layers, x, norm, last)
        weight, bias = layers[-1].weight, layers[-1].bias
        out = functional.linear(self.features(x), weight[-last:], bias[-last:]) if last else self(x)
        return out if norm is None else norm(out)

    def features(self, x: Tensor) -> Tensor:
        """Input of the last layer: x [..., inputs] to [..., hidden]."""
        for module in list(self)[:-1]:
            x = module(x)
        return x
