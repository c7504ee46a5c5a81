"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .bm25 import LexicalScorer as LexicalScorer
from .bm25 import Postings as Postings
from .bm25 import build_postings as build_postings
from .terms import holds_part_number as holds_part_number
from .terms import terms as terms
from .weight import PART_NUMBER_WEIGHT as PART_NUMBER_WEIGHT
from .weight import WORD_WEIGHT as WORD_WEIGHT
from .weight import lexical_weight as lexical_weight
