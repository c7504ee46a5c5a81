"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .adapt import as_reader as as_reader
from .adapt import as_readers as as_readers
from .edits import Edited as Edited
from .edits import edit_texts as edit_texts
from .effects import drift as drift
from .effects import effects as effects
from .effects import relative_drift as relative_drift
from .faithfulness import Faithfulness as Faithfulness
from .faithfulness import faithfulness as faithfulness
from .importance import importance as importance
from .interactions import Interactions as Interactions
from .interactions import interactions as interactions
from .names import INTERVENTIONS as INTERVENTIONS
from .names import SIDES as SIDES
from .names import UNITS as UNITS
from .results import TokenImportance as TokenImportance
from .words.splitting import split_words as split_words
from .words.vocabulary import TokenVocabulary as TokenVocabulary
