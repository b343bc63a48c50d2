"""Message passing among image tokens that stand on a ring.

Shape legend: B batch, L memory tokens (49 for a 224 x 224 image), D width.
"""

from __future__ import annotations

from torch import Tensor, nn


class GraphPropagationLayer(nn.Module):
    """Exchange messages between neighbouring tokens for a few steps, with one weight for all steps.

    The tokens form a ring: the first and the last are neighbours. In each step a token receives
    the mean of the `window_size` tokens around it (itself included), passed through `msg_linear`;
    the sum of token and message is clipped to [-1, 1] (Hardtanh).

    Args:
        embed_dim: width D of a token.
        window_size: tokens averaged for one message, odd.
        max_steps: number of steps; 0 returns the input.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(self, embed_dim: int, window_size: int = 3, max_steps: int = 3) -> None:
        super().__init__()
        if embed_dim < 1:
            raise ValueError(f"embed_dim must be at least 1, not {embed_dim}")
        if window_size < 1 or window_size % 2 == 0:
            raise ValueError(f"window_size must be odd and positive, not {window_size}")
        if max_steps < 0:
            raise ValueError(f"max_steps must be 0 or more, not {max_steps}")
        self.window_size = window_size
        self.max_steps = max_steps
        self.msg_linear = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, L, D] to tokens [B, L, D]; ValueError when L < window_size."""
        if x.shape[1] < self.window_size:
            raise ValueError(
                f"a ring of {x.shape[1]} tokens is shorter than the window of {self.window_size}"
            )
        for _ in range(self.max_steps):
            message = self.msg_linear(self._ring_mean(x))
            x = nn.functional.hardtanh(x + message)
        return x

    def _ring_mean(self, x: Tensor) -> Tensor:
        """Mean [B, L, D] over the window around each token."""
        reach = self.window_size // 2
        total = x
        for offset in range(1, reach + 1):
            total = total + x.roll(offset, dims=1) + x.roll(-offset, dims=1)
        return total / self.window_size
