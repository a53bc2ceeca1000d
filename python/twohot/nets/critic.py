"""Critic heads: an ensemble that classifies the return of (h_t, discount, action) over value bins."""

from __future__ import annotations

import math

import torch
from gymnasium import Space
from torch import Tensor, nn
from torch.nn import functional

from twohot.kernels.critics import op
from twohot.kernels.critics.types import Critics, Rows
from twohot.losses import ValueBins, symlog
from twohot.nets.actions import ActionLinear


def nonzero_indices(wanted: Tensor) -> tuple[Tensor, ...]:
    """Indices of where `wanted` (bool) is True; of everywhere, where their number must not depend on data.

    A GPU would have to be waited for, and torch.compile would break its graph.
    """
    if wanted.is_cpu and not torch.compiler.is_compiling():
        return wanted.nonzero(as_tuple=True)
    axes = (torch.arange(size, device=wanted.device) for size in wanted.shape)
    return tuple(index.flatten() for index in torch.meshgrid(*axes, indexing="ij"))


class CriticEnsemble(nn.Module):
    """C independent MLPs from (h, discount, action) to N logits, with a factored first layer.

    The first layer is linear, so W [h; g; a] = W_h h + W_g g + W_a a: the part of h is computed once per step,
    that of the discount once per discount, and that of a discrete action is a row look-up (`ActionLinear`). A discount
    enters as symlog(1 / (1 - gamma)).

    Args:
        width: E. hidden: units of each hidden layer. layers: hidden layers, at least 1.
        critics: C. discounts: the G discounts. action_space: of the actions. bins: N.
        action_clip: of `ActionLinear`. head_scale: factor on the initial weights of the last layer, without its bias.
        softened: floor and ceiling of choices that were taken, which `taken` makes of them; None leaves them one-hot.
    """

    horizons: Tensor

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        critics: int,
        discounts: tuple[float, ...],
        action_space: Space,
        bins: int,
        *,
        action_clip: float = 1.0,
        head_scale: float = 1.0,
        softened: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.critics, self.hidden, self.softened = critics, hidden, softened
        horizons = symlog(1 / (1 - torch.tensor(discounts, dtype=torch.float64))).float()
        self.register_buffer("horizons", horizons.unsqueeze(-1), persistent=False)
        # State, discount and action contribute equally to the first layer's variance. As one concatenated input,
        # the single number and the one-hot would drown in the `width` entries of h.
        self.state = nn.Parameter(torch.empty(critics * hidden, width).uniform_(-1, 1) / math.sqrt(width))
        self.discount = nn.Parameter(torch.empty(critics, 1, hidden).uniform_(-1, 1) / horizons.square().mean().sqrt())
        self.action = ActionLinear(action_space, critics * hidden, 1.0, action_clip)
        self.bias = nn.Parameter(torch.zeros(critics, 1, hidden))
        bound = 1 / math.sqrt(hidden)
        sizes = [hidden] * layers + [bins]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList(torch.empty(critics, a, b).uniform_(-bound, bound) for a, b in pairs)
        self.biases = nn.ParameterList(torch.empty(critics, 1, b).uniform_(-bound, bound) for _, b in pairs)
        with torch.no_grad():
            self.weights[-1].mul_(head_scale)

    def state_features(self, h: Tensor) -> Tensor:
        """h [M, E] to its part of the first layer, [C, M, 1, hidden] (a view of one matrix product)."""
        return functional.linear(h, self.state).unflatten(-1, (self.critics, 1, self.hidden)).transpose(0, 1)

    def taken(self, action: Tensor) -> Tensor:
        """Actions [..., *action] that were taken, as the critics see them: as they are, or softened choices."""
        return action if self.softened is None else self.action.softened(action, *self.softened)

    def features(self, state: Tensor, action: Tensor) -> Tensor:
        """Input of the last layer for one action per step and discount.

        Args:
            state: [C, M, 1, hidden] from `state_features`.
            action: [M, G, *action] or [M, 1, *action]; the latter means the same action for all discounts. As
                `ActionLinear` takes it.

        Returns:
            [C, M, G, hidden]. The last layer is `head`, which the fused losses take beside it.
        """
        discount = self.horizons * self.discount + self.bias  # [C, G, hidden]
        action = self.action(action).unflatten(-1, (self.critics, self.hidden)).movedim(-2, 0)
        return self._hidden(state + discount.unsqueeze(1) + action)

    def all_features(self, state: Tensor) -> Tensor:
        """Input of the last layer for all A (joint) actions: [C, M, G, A, hidden] for `state` [C, M, 1, hidden]."""
        discount = self.horizons * self.discount + self.bias
        actions = self.action.enumerate_actions()
        actions = actions.unflatten(-1, (self.critics, self.hidden)).movedim(1, 0)  # [C, A, hidden]
        each = discount.unsqueeze(2) + actions.unsqueeze(1)  # [C, G, A, hidden]
        return self._hidden(state.unsqueeze(3) + each.unsqueeze(1))

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """Weight [C, N, hidden] and bias [C, N] of the last layer."""
        return self.weights[-1].transpose(1, 2), self.biases[-1].squeeze(1)

    def cross_entropy(
        self, state: Tensor, action: Tensor, target: Tensor, bins: ValueBins, mask: Tensor, sigma: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of classifying targets, and the value of the same action by each critic.

        As `linear_two_hot_cross_entropy` of `features`, without ever holding features of all discounts.

        Args:
            state: [C, M, 1, hidden] from `state_features`. action: [M, *action] taken. target: [M, G] returns.
            mask: [M] bool, True where a step is real; others contribute exactly nothing.
            sigma: of HL-Gauss labels, in bin widths; None for two-hot labels.

        Returns:
            The mean over real steps, critics and discounts, and values [C, M, G] without gradient, 0 where masked.
        """
        step, rows, counted = self._taken(state, action, mask)
        ensemble = self._ensemble(state, rows)
        labels = (bins.two_hot_labels, 0.0) if sigma is None else ("hl_gauss", sigma)
        target = target[step].flatten().to(ensemble.biases.dtype)
        loss, readout = op.cross_entropy(*ensemble, *rows, target, counted, *bins.support, *labels)
        return loss, self._of_steps(readout, step, len(mask))

    def squared_error(
        self, state: Tensor, action: Tensor, target: Tensor, factor: Tensor, offset: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean of (factor x + offset - target)^2 of critics with one output x, and their factor x + offset.

        Args:
            factor, offset: [G]. The others, and what is returned: as `cross_entropy`.
        """
        step, rows, counted = self._taken(state, action, mask)
        ensemble = self._ensemble(state, rows)
        dtype = ensemble.biases.dtype
        factor, offset = (x.to(dtype).repeat(len(step)) for x in (factor, offset))
        target = target[step].flatten().to(dtype)
        loss, value = op.squared_error(*ensemble, *rows, target, factor, offset, counted)
        return loss, self._of_steps(value, step, len(mask))

    @torch.no_grad()
    def values(self, state: Tensor, step: Tensor, discount: Tensor, action: Tensor, bins: ValueBins) -> Tensor:
        """Values of R (step, discount, action) in units of the return, without gradient.

        Args:
            state: [C, M, 1, hidden]. step, discount: [R] indices into M and G. action: [R, *action].

        Returns:
            [C, R].
        """
        rows = self._rows(step, discount, action, state.dtype)
        return op.critics_expectation(*self._ensemble(state, rows), *rows, *bins.support)

    @torch.no_grad()
    def outputs(self, state: Tensor, step: Tensor, discount: Tensor, action: Tensor) -> Tensor:
        """The one output of each critic [C, R], without gradient; arguments as `values`."""
        rows = self._rows(step, discount, action, state.dtype)
        return op.critics_output(*self._ensemble(state, rows), *rows)

    def _ensemble(self, state: Tensor, rows: Rows) -> Critics:
        """What `twohot.kernels.critics` computes these rows with; products run in the dtype of `state`."""
        dtype = torch.promote_types(state.dtype, torch.float32)
        discount = (self.horizons * self.discount + self.bias).to(dtype)  # [C, G, hidden]
        table = self.action.rows if rows.action is None else self.action.table
        action = table.unflatten(-1, (self.critics, self.hidden)).transpose(0, 1)  # [C, A, hidden]
        if rows.action is None:
            table, action = (action.to(dtype).unsqueeze(2) + discount.unsqueeze(1)).flatten(1, 2), None
        else:
            table, action = discount, action.to(state.dtype)
        hidden = [weight.to(state.dtype) for weight in self.weights[:-1]]
        shape = (0, self.critics, self.hidden)
        weights = torch.stack(hidden) if hidden else state.new_empty(*shape, self.hidden)
        biases = torch.cat(list(self.biases[:-1]), 1).transpose(0, 1).to(dtype) if hidden else table.new_empty(shape)
        head, head_bias = self.weights[-1].to(state.dtype), self.biases[-1].squeeze(1).to(dtype)
        return Critics(state.squeeze(2), table, action, weights, biases.contiguous(), head, head_bias)

    def _taken(self, state: Tensor, action: Tensor, mask: Tensor) -> tuple[Tensor, Rows, Tensor]:
        """Steps of what was done, their rows for all discounts, and which of the rows count.

        Masked steps among them are computed, and count for nothing.
        """
        discounts, action = len(self.horizons), self.taken(action)
        (step,) = nonzero_indices(mask)
        discount = torch.arange(discounts, device=mask.device)
        rows = self._rows(
            step.repeat_interleave(discounts),
            discount.repeat(len(step)),
            action[step].repeat_interleave(discounts, 0),
            state.dtype,
        )
        return step, rows, mask[step].repeat_interleave(discounts)

    def _of_steps(self, value: Tensor, step: Tensor, steps: int) -> Tensor:
        """Values [C, M, G] of those [C, R] of all discounts of some steps; 0 elsewhere."""
        found = value.new_zeros(self.critics, steps, len(self.horizons))
        found[:, step] = value.unflatten(1, (-1, len(self.horizons)))
        return found

    def _rows(self, step: Tensor, discount: Tensor, action: Tensor, dtype: torch.dtype) -> Rows:
        """Rows as `twohot.kernels.critics` takes them; vectors for actions that are no choice, or a softened one."""
        if self.action.chooses and not action.is_floating_point():
            return Rows(step, action.long() * len(self.horizons) + discount, None)
        return Rows(step, discount, self.action.vector(action).to(dtype))

    def _hidden(self, x: Tensor) -> Tensor:
        rows = x.shape[1:-1]
        x = x.reshape(self.critics, -1, self.hidden)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            # In place where autograd keeps nothing: a fresh tensor of this size costs more in page faults than in work.
            x = torch.bmm(functional.leaky_relu(x, inplace=True), weight).add_(bias)
        return functional.leaky_relu(x, inplace=True).unflatten(1, rows)
