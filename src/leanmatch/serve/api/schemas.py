"""Requests and responses, as ``/docs`` shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
)

Text = Annotated[str, Field(min_length=1, pattern=r"\S", strict=True)]
Identifier = Annotated[str, Field(min_length=1, max_length=512, strict=True)]
MetadataValue = StrictStr | StrictInt | StrictFloat | StrictBool | None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class RecommendRequest(_Request):
    """Texts to find items for."""

    texts: Annotated[list[Text], Field(min_length=1, description="What to recommend for.")]
    k: Annotated[int, Field(ge=1, strict=True, description="Items a text.")] = 10
    filter: Annotated[
        dict[str, Any] | str | None,
        Field(
            description='JSON, `{"column": "price", "lt": 20}`, or text, `price < 20 and shop = "A"`.',
            examples=[{"and": [{"column": "category", "eq": "Toys"}, {"column": "price", "lt": 20}]}],
        ),
    ] = None
    exclude: Annotated[list[Identifier], Field(description="Identifiers of items to leave out.")] = []
    exclude_self: Annotated[
        StrictBool, Field(description="Leave out items whose text is the query, up to case and white space.")
    ] = True
    explain: Annotated[
        StrictBool, Field(description="Add to the first 10 results the words that carried the match.")
    ] = False
    hybrid: Annotated[
        StrictBool | None,
        Field(description="Search by terms, too. Default: where the catalogue has terms."),
    ] = None
    lexical_weight: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            strict=True,
            description="Weight of the terms. Default: 0.5 where a text holds a part number, else 0.2.",
        ),
    ] = None
    rerank: Annotated[
        StrictBool, Field(description="Rerank the best items by the server's cross-encoder.")
    ] = False


class Word(BaseModel):
    """A word of a text, by its place in it, and how much the score falls when it is deleted."""

    start: int
    end: int
    importance: float


class Explanation(BaseModel):
    """The words of both sides, and after a hybrid search the terms that both share, rarest first."""

    query: list[Word]
    item: list[Word]
    terms: list[str] | None = None


class Recommended(BaseModel):
    """One item.

    The score is the cosine. After a hybrid search it is the weighted sum of ``cosine`` and ``lexical``.
    After reranking it is the weighted sum of the search's score and the cross-encoder's logit, both
    standardized over the items that were reranked; with the server's ``--rerank-weight 1`` it is the
    cross-encoder's score.
    """

    rank: int
    score: float
    cosine: float | None = None
    lexical: float | None = None
    id: str
    text: str
    metadata: dict[str, Any]
    explanation: Explanation | None = None


class TextResult(BaseModel):
    """One text's items, best first."""

    text: str
    recommendations: list[Recommended]


class RecommendResponse(BaseModel):
    """One entry a text, in their order."""

    model: str
    generation: int
    results: list[TextResult]


Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]], Field(min_length=1)]


def _form_of(value: Any) -> str:
    """Which form of ``input`` it is, so that a fault is told by its place in that form (``input.1``)."""
    if not isinstance(value, list):
        return "as-text"
    first = value[0] if value else ""
    if isinstance(first, list):
        return "as-token-lists"
    return "as-tokens" if isinstance(first, int) else "as-texts"


EmbeddingsInput = Annotated[
    Annotated[Text, Tag("as-text")]
    | Annotated[list[Text], Field(min_length=1), Tag("as-texts")]
    | Annotated[Tokens, Tag("as-tokens")]
    | Annotated[list[Tokens], Field(min_length=1), Tag("as-token-lists")],
    Discriminator(_form_of),
]


class EmbeddingsRequest(_Request):
    """What OpenAI's clients send."""

    input: EmbeddingsInput
    model: Annotated[str, Field(strict=True, description="One of `/v1/models`.")]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[
        Annotated[int, Field(ge=1, strict=True)] | None,
        Field(description="Leading dimensions to keep; they are normalized again. Default: the server's."),
    ] = None
    user: StrictStr | None = None


class Embedding(BaseModel):
    """A vector: numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that were read, and how many texts were cut because they are longer than the model reads."""

    prompt_tokens: int
    total_tokens: int
    truncated_texts: int


class EmbeddingsResponse(BaseModel):
    """One vector an input, in their order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ItemIn(_Request):
    """An item to add, or to replace where its id is there."""

    id: Identifier
    text: Text
    metadata: dict[Annotated[str, Field(min_length=1, max_length=128)], MetadataValue] = {}


class UpsertRequest(_Request):
    """Items to add or replace."""

    items: Annotated[list[ItemIn], Field(min_length=1)]


class DeleteRequest(_Request):
    """Identifiers of items to delete."""

    ids: Annotated[list[Identifier], Field(min_length=1)]


class ChangeResponse(BaseModel):
    """What became of the items."""

    added: int
    updated: int
    unchanged: int
    deleted: int
    unknown: int
    encoded: int
    reused: int
    items: int
    generation: int
    search: str


class Model(BaseModel):
    """A model that embeds."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "leanmatch"
    dimension: int


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Problem(BaseModel):
    """What was wrong and what to do about it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """Every error has this form."""

    error: Problem


class Health(BaseModel):
    """``ready``, or why not.

    ``degraded``: it answers, but does not take up changes of its catalogue. ``unavailable``: its store is.
    """

    status: str
    items: int | None = None
    generation: int | None = None
    identity: str | None = None
    reason: str | None = None


class Suggestions(BaseModel):
    """Item texts that hold what was typed."""

    suggestions: list[str]
