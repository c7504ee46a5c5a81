"""What every encoder has in common: prompts by role, token counts, settings of a model folder.

This layer lies below everything that encodes texts, and importing it loads no torch.
"""

from leanmatch.models.prompts import DOCUMENT, QUERY, PromptOptions, Prompts
from leanmatch.models.settings import SentenceSettings
from leanmatch.models.tokens import TokenCounts, TokenTally, count_encodings, count_model_tokens

__all__ = [
    "DOCUMENT",
    "QUERY",
    "PromptOptions",
    "Prompts",
    "SentenceSettings",
    "TokenCounts",
    "TokenTally",
    "count_encodings",
    "count_model_tokens",
]
