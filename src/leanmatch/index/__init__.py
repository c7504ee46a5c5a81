"""Item catalogues: exact and approximate search, filters, recommendations, and their files. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.index.catalogue import Catalogue as Catalogue
    from leanmatch.index.catalogue import is_catalogue as is_catalogue
    from leanmatch.index.changes import Change as Change
    from leanmatch.index.changes import Item as Item
    from leanmatch.index.changes import items_of as items_of
    from leanmatch.index.encoders import open_encoder as open_encoder
    from leanmatch.index.filters.expression import filter_from_json as filter_from_json
    from leanmatch.index.filters.expression import filter_to_json as filter_to_json
    from leanmatch.index.filters.text import filter_to_text as filter_to_text
    from leanmatch.index.filters.text import parse_filter as parse_filter
    from leanmatch.index.identity import identity_of as identity_of
    from leanmatch.index.recommender import Recommendation as Recommendation
    from leanmatch.index.recommender import Recommender as Recommender
    from leanmatch.index.search.approximate import KINDS as KINDS
    from leanmatch.index.search.exact import ExactIndex as ExactIndex
    from leanmatch.index.search.scan import Selection as Selection
    from leanmatch.index.storage.manifest import Approximate as Approximate
    from leanmatch.index.storage.manifest import Manifest as Manifest
    from leanmatch.index.storage.manifest import ModelIdentity as ModelIdentity
    from leanmatch.index.storage.manifest import SourceColumns as SourceColumns
    from leanmatch.index.storage.manifest import check_files as check_files
    from leanmatch.index.storage.manifest import read_manifest as read_manifest
    from leanmatch.index.storage.transaction import WriteOptions as WriteOptions
    from leanmatch.index.vectors import VectorFile as VectorFile
    from leanmatch.index.vectors import read_vectors as read_vectors
    from leanmatch.index.vectors import write_vectors as write_vectors
    from leanmatch.index.writer import create_catalogue as create_catalogue
    from leanmatch.index.writer import delete_items as delete_items
    from leanmatch.index.writer import put_extra as put_extra
    from leanmatch.index.writer import rebuild_catalogue as rebuild_catalogue
    from leanmatch.index.writer import upsert_items as upsert_items

_HOMES = {
    "Approximate": "leanmatch.index.storage.manifest",
    "Catalogue": "catalogue",
    "Change": "changes",
    "ExactIndex": "leanmatch.index.search.exact",
    "Item": "changes",
    "KINDS": "leanmatch.index.search.approximate",
    "Manifest": "leanmatch.index.storage.manifest",
    "ModelIdentity": "leanmatch.index.storage.manifest",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "Selection": "leanmatch.index.search.scan",
    "SourceColumns": "leanmatch.index.storage.manifest",
    "VectorFile": "vectors",
    "WriteOptions": "leanmatch.index.storage.transaction",
    "check_files": "leanmatch.index.storage.manifest",
    "create_catalogue": "writer",
    "delete_items": "writer",
    "filter_from_json": "leanmatch.index.filters.expression",
    "filter_to_json": "leanmatch.index.filters.expression",
    "filter_to_text": "leanmatch.index.filters.text",
    "identity_of": "identity",
    "is_catalogue": "catalogue",
    "items_of": "changes",
    "open_encoder": "encoders",
    "parse_filter": "leanmatch.index.filters.text",
    "put_extra": "writer",
    "read_manifest": "leanmatch.index.storage.manifest",
    "read_vectors": "vectors",
    "rebuild_catalogue": "writer",
    "upsert_items": "writer",
    "write_vectors": "vectors",
}
__all__ = [
    "KINDS",
    "Approximate",
    "Catalogue",
    "Change",
    "ExactIndex",
    "Item",
    "Manifest",
    "ModelIdentity",
    "Recommendation",
    "Recommender",
    "Selection",
    "SourceColumns",
    "VectorFile",
    "WriteOptions",
    "check_files",
    "create_catalogue",
    "delete_items",
    "filter_from_json",
    "filter_to_json",
    "filter_to_text",
    "identity_of",
    "is_catalogue",
    "items_of",
    "open_encoder",
    "parse_filter",
    "put_extra",
    "read_manifest",
    "read_vectors",
    "rebuild_catalogue",
    "upsert_items",
    "write_vectors",
]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
