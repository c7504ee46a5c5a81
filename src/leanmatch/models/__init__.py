"""What every encoder has in common: prompts by role, token counts, settings of a model folder.

This layer lies below everything that encodes texts, and importing it loads no torch.
"""

from leanmatch.models.prompts import DOCUMENT, QUERY, PromptOptions, Prompts
from leanmatch.models.reranker import RERANK_TOP, RERANK_WEIGHT, PairModel, Reranker, TorchReranker
from leanmatch.models.roles import (
    ByRole,
    Prefix,
    RoleEncoder,
    check_dimensions,
    keep_dimensions,
    roles_differ,
    unit_length,
)
from leanmatch.models.settings import SentenceSettings
from leanmatch.models.surface.call import normalized
from leanmatch.models.surface.encoder import SentenceEncoder
from leanmatch.models.tokens import TokenCounts, TokenTally, count_encodings, count_model_tokens
from leanmatch.models.torch_encoder import TorchEncoder

__all__ = [
    "DOCUMENT",
    "QUERY",
    "RERANK_TOP",
    "RERANK_WEIGHT",
    "ByRole",
    "PairModel",
    "Prefix",
    "PromptOptions",
    "Prompts",
    "Reranker",
    "RoleEncoder",
    "SentenceEncoder",
    "SentenceSettings",
    "TokenCounts",
    "TokenTally",
    "TorchEncoder",
    "TorchReranker",
    "check_dimensions",
    "count_encodings",
    "count_model_tokens",
    "keep_dimensions",
    "normalized",
    "roles_differ",
    "unit_length",
]
