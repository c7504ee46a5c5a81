"""sentence-transformers: a compressed folder opens as any other model does.

    from leanmatch.integrations.sentence_transformers import register

    register()
    model = SentenceTransformer("lean/")

``modules.json`` of a compressed folder names the classes of this module. Since version 6 the library
imports classes of other packages only with ``trust_remote_code=True``, or where they were given to it before,
which :func:`register` does. In torch a compressed layer computes with its decoded weights: what saves time is
:func:`leanmatch.load`.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from leanmatch.errors import MissingExtraError, ModelError, UsageError
from leanmatch.formats.artifact.loader import build
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.artifact.stock_names import require_leanmatch
from leanmatch.formats.artifact.stock_saving import write_module, write_weights

try:
    from sentence_transformers import SentenceTransformer
except ModuleNotFoundError as error:
    raise MissingExtraError(
        "sentence-transformers", "train", "opening a compressed model in sentence-transformers"
    ) from error


try:
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm
except ModuleNotFoundError:  # before 5.4
    from sentence_transformers.models import (  # type: ignore[import-not-found, no-redef]
        Dense,
        LayerNorm,
        Transformer,
    )

_OTHER = re.compile(r"module[1-9]\d*")
"""How names of parameters behind the first module begin."""


class _Compressed:
    """What modules of a compressed model share: they are read from one artifact, the first one writes it."""

    _artifact: Mapping[str, Any]
    _others: tuple[str, ...]
    _owner: Any

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Self:
        """Read the module from its model's artifact; called by sentence-transformers.

        Raises:
            FormatError: the artifact is damaged.
            UsageError: options for loading stock weights, or another backend than torch.
        """
        _refuse(options)
        folder = cls.load_dir_path(  # type: ignore[attr-defined]
            model_name_or_path,
            subfolder="",
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        if folder is None:
            raise ModelError(f"{model_name_or_path} is neither a folder here nor a model on the hub")
        artifact = read_artifact(folder)
        number = next((n for n, entry in enumerate(artifact.modules) if entry.path == subfolder), None)
        if number is None:
            raise ModelError(
                f"{folder} has no module in {subfolder!r}", remedy="save or copy the folder again"
            )
        module: Any = cls.__new__(cls)
        module.__dict__.update(list(build(artifact, "cpu"))[number].__dict__)
        module._artifact = artifact.provenance
        names = {name.partition(".")[0] for name in (*artifact.tensors, *artifact.layers)}
        module._others = tuple(sorted(name for name in names if _OTHER.fullmatch(name)))
        return module  # type: ignore[no-any-return]

    def on_model_ready(self, model: Any) -> None:
        """Remember the model that the module is part of; called by sentence-transformers since version 6."""
        self._owner = weakref.ref(model)

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """Write the module as a part of an artifact; called by ``SentenceTransformer.save_pretrained``.

        Raises:
            ModelError: several modules hold weights, and sentence-transformers does not say which model
                they are of (before version 6, and after ``copy.deepcopy``).
        """
        from leanmatch.compression import compressed_layers

        module: Any = self
        owner = self.__dict__.get("_owner", lambda: None)()
        model = owner if owner is not None else SentenceTransformer(modules=[module], device="cpu")
        if not any(compressed_layers(part) for part in model):  # its layers were replaced by stock ones
            super().save(output_path, *arguments, **options)  # type: ignore[misc]
            return
        folder = Path(output_path)
        write_module(module, folder)
        if next(iter(model)) is not module:
            return
        if owner is None and self._others:
            raise ModelError(
                f"the weights of {', '.join(self._others)} are not in reach of this module",
                remedy="save it with leanmatch.formats.save_compressed(model, folder, provenance)",
            )
        write_weights(model, folder, self._artifact)
        require_leanmatch(folder)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_owner"}


class CompressedTransformer(_Compressed, Transformer):  # type: ignore[misc]
    """A ``Transformer`` with compressed layers."""


class CompressedDense(_Compressed, Dense):  # type: ignore[misc]
    """A ``Dense`` module of a compressed model."""


class CompressedLayerNorm(_Compressed, LayerNorm):  # type: ignore[misc]
    """A ``LayerNorm`` module of a compressed model."""


CLASSES = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (CompressedTransformer, CompressedDense, CompressedLayerNorm)
}
"""Types in ``modules.json`` to their classes."""


def _refuse(options: Mapping[str, Any]) -> None:
    """Options for loading stock weights mean nothing here, and are not passed over."""
    backend = options.get("backend", "torch")
    if backend != "torch":
        raise UsageError(
            f"a compressed model with the backend {backend!r}",
            remedy=f"export it: leanmatch.formats.exports.export_model(model, {backend!r}, folder)",
            command=f"export it: leanmatch export MODEL --to {backend}",
        )
    kinds = ("model_kwargs", "processor_kwargs", "config_kwargs", "tokenizer_kwargs")
    given = {name: options[name] for name in kinds if options.get(name)}
    if given:
        raise UsageError(
            f"a compressed model takes no {' or '.join(given)} (found {given!r:.80})",
            remedy="leave them out; .to(dtype) and .to(device) work on the loaded model",
        )


def register() -> None:
    """Let ``SentenceTransformer(folder)`` find these classes without ``trust_remote_code=True``.

    It covers the classes of this module and no others. Before version 6 nothing is asked for.

    Raises:
        ModelError: this version of sentence-transformers has no place for it.
    """
    base: Any = SentenceTransformer.__mro__[1]
    if not hasattr(base, "_load_with_module_classes"):
        from sentence_transformers import __version__

        if int(__version__.partition(".")[0]) < 6:
            return
        raise ModelError(
            f"sentence-transformers {__version__} takes no classes of other packages",
            remedy='SentenceTransformer("lean/", trust_remote_code=True)',
        )
    base._module_classes = {**base._module_classes, **CLASSES}
