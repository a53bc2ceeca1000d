"""Linear layers: sigma-reparametrised, and the plain multi-layer perceptron."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.kernels.backend import without_autocast


def _scaled(weight: Tensor, gain: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return weight * (gain / torch.dot(u, torch.mv(weight, v)))


class _Scaled(torch.autograd.Function):
    """g / (u^T W v) W, whose derivatives are a few operations; composed, they would be many."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, gain: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return _scaled(weight, gain, u, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, gain, u, v = ctx.saved_tensors
        sigma = torch.dot(u, torch.mv(weight, v))  # again, so that second derivatives see what it is made of
        factor = gain / sigma
        grad_gain = (grad_output * weight).sum() / sigma
        grad_weight = torch.outer(u * (grad_gain * factor), v)
        return torch.sub(grad_output * factor, grad_weight), grad_gain, None, None


class SigmaLinear(nn.Module):
    """y = (g / sigma(W)) W x + b, where sigma is the spectral norm (Zhai et al. 2023, arXiv 2303.06296).

    sigma is estimated as u^T W v by power iteration; u and v are buffers without gradient, exact at the start
    and brought up to date by `iterate`, once per gradient step. A forward pass changes nothing.

    Args:
        inputs, outputs: sizes of x and y. bias: whether b exists.
    """

    u: Tensor
    v: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.gain = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        u, _, v = torch.linalg.svd(self.weight.detach(), full_matrices=False)
        self.register_buffer("u", u[:, 0].clone())
        self.register_buffer("v", v[0].clone())

    @torch.no_grad()
    def iterate(self) -> None:
        """One step of power iteration on u and v."""
        for weight, x, to in ((self.weight, self.v, self.u), (self.weight.T, self.u, self.v)):
            y = torch.mv(weight, x)
            torch.div(y, torch.linalg.vector_norm(y).clamp_(min=1e-12), out=to)

    def effective_weight(self) -> Tensor:
        """[outputs, inputs] g / sigma(W) W, differentiable in g and W."""
        with without_autocast(self.weight.device):
            scaled = _scaled if torch.compiler.is_compiling() else _Scaled.apply  # which a compiler takes apart itself
            return scaled(self.weight, self.gain, self.u, self.v)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] to [..., outputs]."""
        return functional.linear(x, self.effective_weight(), self.bias)


class FoldedLinear(nn.Module):
    """A `SigmaLinear` whose weights change no more: what divides them is computed once.

    Args:
        layer: of the weights; this one shares its bias.
    """

    def __init__(self, layer: SigmaLinear) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(layer.effective_weight().detach(), requires_grad=False), layer.bias

    def effective_weight(self) -> Tensor:
        """As that of `SigmaLinear`."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] to [..., outputs]."""
        return functional.linear(x, self.weight, self.bias)


class MLP(nn.Sequential):
    """Linear layers with leaky ReLU between them: `layers` hidden ones of `hidden` units, then one to `outputs`."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int) -> None:
        sizes = [inputs, *[hidden] * layers]
        modules: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            modules += [nn.Linear(before, after), nn.LeakyReLU(inplace=True)]
        super().__init__(*modules, nn.Linear(sizes[-1], outputs))

    @property
    def layers(self) -> list[nn.Linear]:
        """The linear ones, in order."""
        return [module for module in self if isinstance(module, nn.Linear)]

    def last_outputs(self, x: Tensor, count: int) -> Tensor:
        """The last `count` outputs of `forward`, x [..., inputs] to [..., count], without computing the others."""
        last = self.layers[-1]
        return functional.linear(self.features(x), last.weight[-count:], last.bias[-count:])

    def features(self, x: Tensor) -> Tensor:
        """Input of the last layer: x [..., inputs] to [..., hidden]."""
        for module in list(self)[:-1]:
            x = module(x)
        return x
