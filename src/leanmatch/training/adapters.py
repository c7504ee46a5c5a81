"""Training part of a model: freezing the lowest layers, or LoRA adapters that are merged at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from leanmatch.errors import MissingExtraError, UsageError
from leanmatch.models.adapter import transformer_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def freeze_layers(model: Any, count: int) -> int:
    """Freeze the embeddings and the ``count`` lowest transformer layers.

    Returns:
        Number of parameters that are frozen now.

    Raises:
        UsageError: the encoder has no layers, or fewer than ``count + 1``.
    """
    encoder = _transformer(model, "freeze_layers")
    layers = max(
        (module for module in encoder.modules() if isinstance(module, nn.ModuleList)), key=len, default=None
    )
    if layers is None or count >= len(layers):
        depth = 0 if layers is None else len(layers)
        raise UsageError(
            f"cannot freeze {count} layers of an encoder with {depth}", remedy="freeze fewer layers"
        )
    frozen: list[nn.Module] = list(layers[:count])
    frozen.append(getattr(encoder, "embeddings", encoder.get_input_embeddings()))
    for module in frozen:
        module.requires_grad_(False)
    return sum(p.numel() for p in encoder.parameters() if not p.requires_grad)


def add_lora(model: Any, rank: int) -> None:
    """Put LoRA adapters (alpha = 2 rank, dropout 0) on all linear layers and freeze everything else.

    Source: Hu et al., *LoRA* (arXiv 2106.09685), as implemented by ``peft``.
    """
    encoder = _transformer(model, "lora_rank")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("peft", "train", "training LoRA adapters") from error
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=_linear_names(encoder)),
        encoder,
    )


def merge_lora(model: Any) -> int:
    """Fold every adapter into its weight and remove it, so that the model is stock again.

    Returns:
        Number of adapters merged; 0 where there were none.
    """
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        return 0
    merged = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
                merged += 1
    if merged:
        model.requires_grad_(True)
    return merged


def _linear_names(encoder: nn.Module) -> list[str]:
    """Names of the linear layers inside the stack of transformer layers (not the unused pooler)."""

    def walk() -> Iterator[str]:
        for name, module in encoder.named_modules():
            if isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split(".")):
                yield name

    return list(walk())


def _transformer(model: Any, option: str) -> Any:
    encoder = transformer_of(model)
    if encoder is None:
        raise UsageError(
            f"{option} needs a transformer, and the first module is a {type(model[0]).__name__}",
            remedy=f"leave {option} at 0",
        )
    return encoder
