"""``leanmatch.load``: a model folder to an :class:`Encoder` on the native runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from leanmatch import native
from leanmatch.errors import ModelError, UsageError
from leanmatch.factorization import Dense
from leanmatch.formats.provenance import read_provenance
from leanmatch.formats.reader import find_model
from leanmatch.runtime.architectures import read_sizes
from leanmatch.runtime.build import build_static, build_transformer
from leanmatch.runtime.encoder import Encoder
from leanmatch.runtime.modules import HeadFolder, Layout, read_json, read_layout
from leanmatch.runtime.tokenization import read_tokenizer
from leanmatch.runtime.weights import STOCK_FILE, StockWeights, open_safetensors


def load_native(folder: Path, name: str, weights: str) -> Encoder:
    from leanmatch.runtime.paths import pack
    layout = read_layout(folder)
    module = native.load()
    level = [k for k, v in native.variants().items() if v.runs][-1]
    config: dict[str, Any] = {}
    if layout.is_static:
        raise NotImplementedError
    config = read_json(layout.transformer / "config.json")
    architecture, sizes = read_sizes(config)
    path = layout.transformer / STOCK_FILE
    with open_safetensors(path) as file:
        source = StockWeights(path, file)
        fields = build_transformer(source, architecture, sizes, lambda n, f, b: pack(f, b, level), level, layout.max_tokens)
    fields["pooling"] = list(layout.pooling)
    fields["post"] = [{"kind": "normalize"} for one in layout.heads]
    graph = module.Encoder(fields)
    tokenizer = read_tokenizer(layout, config, graph.most_tokens or None)
    return Encoder(graph, tokenizer, name=name, folder=folder, weights=weights, provenance=read_provenance(folder), choices=(), vocabulary=fields["words"].rows)
