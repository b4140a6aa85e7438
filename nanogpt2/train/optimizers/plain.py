"""torch's optimizers without what torch wraps their methods in."""

import torch

from nanogpt2.device.torch_private import unwrap


class Plain(torch.optim.Optimizer):
    """An optimizer's methods without what torch wraps them in."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(Plain, torch.optim.AdamW):
    """torch's."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
