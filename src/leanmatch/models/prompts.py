"""Prompts: the text that a model puts before queries, before documents, or before any other text.

The rules are those of sentence-transformers: ``encode_query`` takes the prompt named ``query``,
``encode_document`` the first that there is of ``document``, ``passage`` and ``corpus``, and ``encode`` the
default prompt. A model always has prompts named ``query`` and ``document``; they are empty where its folder
does not set them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from leanmatch.errors import ModelError, UsageError

QUERY, DOCUMENT = "query", "document"
ROLES: Mapping[str, tuple[str, ...]] = {QUERY: ("query",), DOCUMENT: ("document", "passage", "corpus")}
"""Role of a text to the names of its prompt; the first name that a model has counts."""

CONFIG_FILE = "config_sentence_transformers.json"


@dataclass(frozen=True)
class PromptOptions:
    """Prompts to use in place of a model's own.

    Attributes:
        query: what goes before queries; "" for nothing, None for the model's own prompt.
        document: what goes before documents, likewise.
        name: one of the model's named prompts, for queries and documents alike.
    """

    query: str | None = None
    document: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None and (self.query is not None or self.document is not None):
            raise UsageError(
                f"the prompt name {self.name!r} and the text of a prompt exclude one another",
                remedy="give name, or query and document",
                command="give --prompt-name, or --query-prompt and --document-prompt",
            )

    def __bool__(self) -> bool:
        return (self.query, self.document, self.name) != (None, None, None)


@dataclass(frozen=True, eq=False)
class Prompts(Mapping[str, str]):
    """A model's prompts: a mapping from names to texts, equal to a dict with the same entries.

    Attributes:
        named: prompt by name; ``query`` and ``document`` are always among them.
        default_name: the prompt of :meth:`resolve` where nothing is asked for, None for no prompt.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    default_name: str | None = None

    def __post_init__(self) -> None:
        names = {**dict.fromkeys(ROLES, ""), **{name: text or "" for name, text in self.named.items()}}
        object.__setattr__(self, "named", names)

    def __getitem__(self, name: str) -> str:
        return self.named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.named)

    def __len__(self) -> int:
        return len(self.named)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Prompts) and other.default_name != self.default_name:
            return False
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: object) -> Prompts:
        """Read the content of a folder's ``config_sentence_transformers.json``.

        Raises:
            ModelError: prompts that are not text, or a default prompt that is not among them.
        """
        named, default = config.get("prompts") or {}, config.get("default_prompt_name")
        if not isinstance(named, Mapping) or not all(isinstance(text, str | None) for text in named.values()):
            raise ModelError(
                f"{source}: prompts is {named!r:.80}, not a mapping from names to texts",
                remedy="correct the file, or save the model again",
            )
        prompts = cls(named, default)
        if default is not None and default not in prompts.named:
            raise ModelError(
                f"{source}: default_prompt_name is {default!r}, and the prompts are "
                f"{', '.join(prompts.named)}",
                remedy="name one of them, or null for none",
            )
        return prompts

    @classmethod
    def from_model(cls, model: Any) -> Prompts:
        """The prompts of a ``SentenceTransformer``; none for any other model."""
        return cls(dict(getattr(model, "prompts", None) or {}), getattr(model, "default_prompt_name", None))

    def resolve(self, prompt_name: str | None = None, prompt: str | None = None) -> str:
        """The text that goes before each text.

        Args:
            prompt_name: one of :attr:`named`.
            prompt: the text itself. It goes before ``prompt_name``, with a warning, as in
                sentence-transformers.

        Raises:
            UsageError: no such name.
        """
        if prompt is not None and prompt_name is not None:
            warnings.warn(
                f"both prompt_name {prompt_name!r} and prompt {prompt!r} are given: the prompt is used",
                stacklevel=4,
            )
        if prompt is not None:
            return prompt
        name = self.default_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.named:
            raise UsageError(
                f"the model has no prompt named {name!r}", remedy=f"it has {', '.join(self.named)}"
            )
        return self.named[name]

    def of_role(self, role: str | None) -> str:
        """The prompt of queries or documents; the default prompt for None."""
        if role is None:
            return self.resolve()
        return self.named[next(name for name in ROLES[role] if name in self.named)]

    @property
    def query(self) -> str:
        """What goes before queries."""
        return self.of_role(QUERY)

    @property
    def document(self) -> str:
        """What goes before documents."""
        return self.of_role(DOCUMENT)

    @property
    def any_text(self) -> bool:
        """Whether any prompt holds text."""
        return any(self.named.values())

    def replaced(self, texts: Mapping[str, str | None]) -> Prompts:
        """Other prompts, with this default where they have a prompt of its name.

        Raises:
            ModelError: prompts that are not text.
        """
        if isinstance(texts, Prompts):
            return texts
        default = self.default_name if self.default_name in texts else None
        return Prompts.from_config({"prompts": texts, "default_prompt_name": default}, "the mapping")

    def with_default(self, name: str | None) -> Prompts:
        """These prompts, with another default.

        Raises:
            UsageError: no such prompt.
        """
        if name is not None:
            self.resolve(name)
        return Prompts(self.named, name)

    def overridden(self, options: PromptOptions) -> Prompts:
        """These prompts, with those of ``options`` for queries and documents.

        Raises:
            UsageError: a name that the model does not have.

        >>> own = Prompts({"sts": "match: ", "query": "find: "})
        >>> own.overridden(PromptOptions(name="sts")).query, own.overridden(PromptOptions(query="")).query
        ('match: ', '')
        """
        query, document = options.query, options.document
        if options.name is not None:
            query = document = self.resolve(options.name)
        changed = {QUERY: query, DOCUMENT: document}
        texts = {role: text for role, text in changed.items() if text is not None}
        return Prompts({**self.named, **texts}, self.default_name)
