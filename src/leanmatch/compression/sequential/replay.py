"""An encoder run layer by layer on kept hidden states, as the dense model and as the compressed one at once.

The model itself stays dense. What a linear layer computes is replaced while a pass runs: outputs that are
known already are looked up, and a pass ends where the first unknown ones are reached. So each linear layer is
computed once for each of the two models, whatever the encoder does between them, and no pass goes through the
layers below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanmatch import native
from leanmatch.compression.calibration import run
from leanmatch.compression.layers import CompressedLayer, CompressedLinear
from leanmatch.compression.sequential.order import EncoderLayer, Stage
from leanmatch.models.adapter import on_device

if TYPE_CHECKING:
    from torch import Tensor

DENSE, LEAN = "dense", "lean"


class _ReachedError(Exception):
    """A pass has come as far as it should."""


@dataclass(frozen=True)
class _Call:
    """What an encoder layer is called with, for one batch."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def hidden(self) -> Tensor:
        """The hidden states among the arguments."""
        values = (*self.arguments, *self.named.values())
        return next(
            v for v in values if isinstance(v, torch.Tensor) and v.ndim >= 2 and v.is_floating_point()
        )


class Replay:
    """Two runs of one model, side by side: of its dense layers and of their stand-ins.

    For each encoder layer in turn: :meth:`enter`, then for each of its stages :meth:`reach` on every batch
    and :meth:`settle`, then :meth:`leave`.

    Args:
        model: the dense model, in evaluation mode. It is the same afterwards.
        layers: the encoder's layers, in order.
        batches: feature dicts with ``input_ids`` and ``attention_mask``.
        stand_ins: of layers that are compressed already, by full name; tables and layers outside the encoder.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[EncoderLayer],
        batches: Iterable[Mapping[str, Any]],
        stand_ins: Mapping[str, CompressedLayer],
    ) -> None:
        self._model = model
        self._layers = [model.get_submodule(layer.name) for layer in layers]
        self._last_stages = [layer.stages[-1] if layer.stages else None for layer in layers]
        self._attention_names = [layer.attention for layer in layers]
        self._batches = [on_device(batch, model) for batch in batches]
        self.masks = [batch["attention_mask"].bool() for batch in self._batches]
        by_weight = {id(model.get_submodule(name).weight): layer for name, layer in stand_ins.items()}
        self._stand_ins: dict[nn.Module, CompressedLayer] = {
            module: by_weight[id(module.weight)]
            for module in model.modules()
            if isinstance(module, nn.Linear | nn.Embedding) and id(module.weight) in by_weight
        }
        self._number = 0
        self._calls: dict[tuple[str, int], _Call] = {}
        self._passed: dict[tuple[str, int], list[Callable[[Tensor], Any]]] = {}
        self._hidden: dict[tuple[str, int], Tensor] = {}
        self._outputs: dict[tuple[str, int, str], Tensor] = {}
        self._attended: dict[tuple[str, int], Any] = {}
        self._input = torch.empty(0)  # of the stage that the last pass of the compressed side reached

    def enter(self, number: int) -> None:
        """Find out what layer ``number`` is called with; the layers below must have been left."""
        self._number = number
        layer = self._layers[number]
        for side in (DENSE, LEAN):
            for row, batch in enumerate(self._batches):
                met: list[_Call] = []

                def stop(_: nn.Module, arguments: Any, named: Any, met: list[_Call] = met) -> None:
                    met.append(_Call(arguments, dict(named)))
                    raise _ReachedError

                handle = layer.register_forward_pre_hook(stop, with_kwargs=True)
                try:
                    with _arithmetic(layer), self._without_layers_below(side, row), self._side(side):
                        run(self._model, batch)
                except _ReachedError:
                    self._calls[side, row] = met[0]
                finally:
                    handle.remove()
        self._hidden.clear()

    def reach(self, stage: Stage, row: int) -> tuple[Tensor, Tensor]:
        """The compressed model's inputs of a stage and the outputs that are wanted there, for one batch.

        Where the outputs are added to the residual stream, what the stream of the compressed model lacks of
        the dense model's is wanted too.

        Returns:
            ``(tokens, n)`` and ``(tokens, m)``, the stage's layers side by side, padding left out.
        """
        stream: dict[str, Tensor] = {}
        self._pass(DENSE, row, stage, stream)
        wanted = torch.cat([self._outputs[DENSE, row, name].float() for name in stage.names], dim=-1)
        if stage is self._last_stages[self._number]:  # the dense model needs none of its outputs again
            self._leave(DENSE, row)
        self._pass(LEAN, row, stage, stream)
        if stage.stream is not None:
            wanted = wanted + (stream[DENSE].float() - stream[LEAN].float())
        return self._tokens(self._input, row).float(), self._tokens(wanted, row)

    def settle(self, stage: Stage, layers: Mapping[str, CompressedLayer]) -> None:
        """Give a stage that was reached its stand-ins: their outputs are known from now on.

        The inputs of the stage are computed again, because those of all batches would fill the memory.
        """
        weights = {}
        for name, layer in layers.items():
            assert isinstance(layer, CompressedLinear)
            with torch.no_grad():
                bias = None if layer.bias is None else layer.bias.float()
                weights[name] = layer.factors.weight(), bias
        for row in range(len(self._batches)):
            self._pass(LEAN, row, stage, {})
            x = self._input
            for name, (weight, bias) in weights.items():
                with torch.no_grad(), _arithmetic(layers[name]):
                    output = nn.functional.linear(x.float(), weight, bias)
                    mixed = torch.is_autocast_enabled(x.device.type)
                self._outputs[LEAN, row, name] = output if mixed else output.to(x.dtype)

    def leave(self) -> None:
        """Run the layer to its end, with all that is known of it."""
        for side, row in list(self._calls):
            self._leave(side, row)

    def _leave(self, side: str, row: int) -> None:
        layer = self._layers[self._number]
        call = self._calls.pop((side, row))
        with _arithmetic(layer), self._known(side, row), self._side(side):
            output = layer(*call.arguments, **call.named)
        hidden, rebuild = _split(output, call.hidden)
        self._hidden[side, row] = hidden
        self._passed.setdefault((side, row), []).append(rebuild)
        self._forget(side, row)
        self._attended.pop((side, row), None)

    def _pass(self, side: str, row: int, stage: Stage, stream: dict[str, Tensor]) -> None:
        """Run the present layer until the stage: keep its input, and the dense side's outputs."""
        call = self._calls[side, row]
        handles = []
        if stage.stream is not None:
            module = self._model.get_submodule(stage.stream)
            handles.append(module.register_forward_pre_hook(lambda _, x: stream.__setitem__(side, x[0])))
        layer = self._layers[self._number]
        try:
            with _arithmetic(layer), self._known(side, row, stage.names), self._side(side):
                layer(*call.arguments, **call.named)
        except _ReachedError:
            pass
        finally:
            for handle in handles:
                handle.remove()

    def _tokens(self, x: Tensor, row: int) -> Tensor:
        mask = self.masks[row]
        return x[mask] if x.shape[:2] == mask.shape else x.reshape(-1, x.shape[-1])

    def _forget(self, side: str, row: int, within: str = "") -> None:
        """Drop the outputs of linear layers, all or those within a module."""
        for key in [key for key in self._outputs if key[:2] == (side, row) and key[2].startswith(within)]:
            del self._outputs[key]

    @contextmanager
    def _known(self, side: str, row: int, wanted: Sequence[str] = ()) -> Iterator[None]:
        """Look up what is known; end the pass at the linear layers that are wanted.

        Known are outputs of linear layers, and those of the attention as soon as a pass has gone through it.
        """
        met: list[str] = []

        def meet(name: str, dense: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            if side == LEAN:
                self._input = x
                raise _ReachedError
            self._outputs[side, row, name] = output = dense(x)
            met.append(name)
            if len(met) == len(wanted):
                raise _ReachedError
            return output

        def attended(_: nn.Module, arguments: Any, output: Any) -> None:
            self._attended[side, row] = output
            self._forget(side, row, attention_name + ".")

        attention_name = self._attention_names[self._number]
        attention = self._model.get_submodule(attention_name)
        forwards: dict[nn.Module, Callable[..., Any]] = {}
        for name in [name for s, r, name in self._outputs if (s, r) == (side, row)]:
            output = self._outputs[side, row, name]
            forwards[self._model.get_submodule(name)] = lambda x, output=output: output
        for name in wanted:
            module = self._model.get_submodule(name)
            forwards[module] = lambda x, name=name, dense=module.forward: meet(name, dense, x)
        if (side, row) in self._attended:
            context = self._attended[side, row]
            forwards[attention] = lambda *_, **__: context
        handle = attention.register_forward_hook(attended)
        try:
            with _replaced(forwards):
                yield
        finally:
            handle.remove()

    @contextmanager
    def _side(self, side: str) -> Iterator[None]:
        """Without gradients; on the compressed side with the stand-ins that are there from the start."""
        forwards: dict[nn.Module, Callable[..., Any]] = {}
        if side == LEAN:
            forwards |= {module: layer.forward for module, layer in self._stand_ins.items()}
        with torch.no_grad(), _replaced(forwards):
            yield

    @contextmanager
    def _without_layers_below(self, side: str, row: int) -> Iterator[None]:
        """Layers that were left give what they gave, and the last of them the kept hidden states."""
        passed = self._passed.get((side, row), [])
        hidden = self._hidden.get((side, row))
        forwards = {
            layer: (lambda *_, rebuild=rebuild, **__: rebuild(hidden))
            for layer, rebuild in zip(self._layers, passed, strict=False)
        }
        with _replaced(forwards):
            yield


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Modules compute something else meanwhile."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del module.forward
            else:
                module.forward = own


def _split(output: Any, like: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """An encoder layer's hidden states, and how to put others in their place."""
    if isinstance(output, torch.Tensor):
        return output, lambda hidden: hidden
    shapes = [getattr(part, "shape", None) for part in output]
    hidden_at = shapes.index(like.shape)
    before, after = tuple(output[:hidden_at]), tuple(output[hidden_at + 1 :])
    return output[hidden_at], lambda hidden: (*before, hidden, *after)


def _arithmetic(module: nn.Module) -> Any:
    """bfloat16 products where a CPU has instructions for them, what the parameters say elsewhere."""
    device = next(iter((*module.parameters(), *module.buffers()))).device.type
    if device == "cpu" and native.load().linear.has_bf16():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()
