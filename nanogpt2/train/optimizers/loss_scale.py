"""The factor of float16's loss."""

import torch
from torch import Tensor


class LossScale:
    """The factor of float16's loss, without which small gradients would be zero.

    It is halved after a step whose gradient is not finite, and doubled after 2000 that were, as
    torch.amp.GradScaler's; the host need not wait for it (Micikevicius et al. 2018).
    """

    INITIAL = 2.0**16
    PATIENCE = 2000

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), self.INITIAL, device=device)
        self.good_steps = torch.zeros((), device=device)

    def update(self, found_inf: Tensor) -> None:
        """Take note of a step; `found_inf` is 1 where its gradient was not finite, else 0."""
        good_steps = (self.good_steps + 1) * (1 - found_inf)
        grows = good_steps == self.PATIENCE
        self.value.mul_(torch.where(grows, 2.0, 1 - found_inf / 2))
        self.good_steps.copy_(torch.where(grows, 0.0, good_steps))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the scale, and the steps since it last changed."""
        return {"value": self.value, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self.value.copy_(state["value"])
        self.good_steps.copy_(state["good_steps"])
