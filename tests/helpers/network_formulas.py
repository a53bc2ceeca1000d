"""Layers as explicit formulas over plain tensors, for the tests of the networks."""

import torch


def action_logits(critics, state, action):
    """Logits [C, M, G, N] of one action per step and discount; arguments as `CriticEnsemble.features`."""
    weight, bias = critics.head
    return torch.einsum("cmgh,cnh->cmgn", critics.features(state, action), weight) + bias[:, None, None]


def all_logits(critics, state):
    """Logits of every action: [C, M, G, A, N] for `state` [C, M, 1, hidden] of a CriticEnsemble."""
    weight, bias = critics.head
    return torch.einsum("cmgah,cnh->cmgan", critics.all_features(state), weight) + bias[:, None, None, None]


def leaky_relu(x):
    return torch.where(x > 0, x, 0.01 * x)


def layer_norm(x, norm):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def convolution(layer, x):
    """x [C, H, W], pixel by pixel."""
    stride, padding, kernel = layer.stride[0], layer.padding[0], layer.kernel_size[0]
    padded = x.new_zeros(x.shape[0], x.shape[1] + 2 * padding, x.shape[2] + 2 * padding)
    padded[:, padding : padding + x.shape[1], padding : padding + x.shape[2]] = x
    rows, columns = ((size - kernel) // stride + 1 for size in padded.shape[1:])
    out = x.new_zeros(layer.out_channels, rows, columns)
    for i in range(rows):
        for j in range(columns):
            patch = padded[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            out[:, i, j] = (layer.weight * patch).sum((1, 2, 3)) + layer.bias
    return out


def largest_of_three(x):
    """The pool of 3 x 3 with stride 2 of x [C, H, W]."""
    rows, columns = ((size - 3) // 2 + 1 for size in x.shape[1:])
    pixels = [x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax((1, 2)) for i in range(rows) for j in range(columns)]
    return torch.stack(pixels, 1).view(-1, rows, columns)


def group_norm(norm, x):
    groups = x.unflatten(0, (4, -1))
    mean = groups.mean((1, 2, 3), keepdim=True)
    variance = (groups - mean).square().mean((1, 2, 3), keepdim=True)
    normal = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(0, 1)
    return normal * norm.weight[:, None, None] + norm.bias[:, None, None]


def residual_block(block, x):
    hidden = leaky_relu(convolution(block.first, leaky_relu(x)))
    return group_norm(block.norm, x + convolution(block.second, hidden))


def gru_states(gru, x):
    """All states [L, E] of the last layer of a GRU over x [L, inputs], from a state of 0 (Cho et al. 2014)."""
    for index in range(gru.num_layers):
        inputs, recurrent, b_i, b_h = gru.all_weights[index]
        state, states = x.new_zeros(gru.hidden_size), []
        for x_t in x:
            r_i, z_i, n_i = (inputs @ x_t + b_i).chunk(3)
            r_h, z_h, n_h = (recurrent @ state + b_h).chunk(3)
            update = torch.sigmoid(z_i + z_h)
            state = (1 - update) * torch.tanh(n_i + torch.sigmoid(r_i + r_h) * n_h) + update * state
            states.append(state)
        x = torch.stack(states)
    return x


def perturb(module, scale=0.3):
    """Move every parameter, so that no gain is one and no bias zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return module


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def integers(limit, *shape, seed=0, dtype=torch.int64):
    return torch.randint(limit, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
