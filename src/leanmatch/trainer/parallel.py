"""Several processes on one run (``torchrun``): what they must do alike, and what only the first one decides.

``DistributedDataParallel`` exchanges gradients in the backward pass that follows a forward pass through it,
and every process has to take part in every exchange. How many passes a batch takes depends on its texts, so
processes may differ in it. Hence all passes but a batch's last one go through the model inside the wrapper,
where gradients only add up, and the last one goes through the wrapper: one exchange a step.
"""

from __future__ import annotations

from typing import Any

from torch.nn.parallel import DistributedDataParallel


def unwrapped(model: Any) -> Any:
    """The model inside ``DistributedDataParallel``; any other model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def wait_for_all() -> None:
    """Return when every process has come here."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def first_decides(decision: bool) -> bool:
    """The first process's decision, in all processes. Each of them must call this."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    if PartialState().num_processes == 1:
        return decision
    decisions = [decision]
    broadcast_object_list(decisions, from_process=0)
    return decisions[0]
