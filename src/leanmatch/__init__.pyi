"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .data import ItemTable as ItemTable
from .data import PairTable as PairTable
from .data import SplitOptions as SplitOptions
from .data import read_items as read_items
from .data import read_pairs as read_pairs
from .data import split_pairs as split_pairs
from .errors import LeanmatchError as LeanmatchError
from .formats import save_matcher as save_matcher
from .index import Catalogue as Catalogue
from .index import Recommender as Recommender
from .interventions import importance as importance
from .metrics import EvaluationOptions as EvaluationOptions
from .metrics import evaluate as evaluate
from .report import diagnose as diagnose
from .runtime import load as load
from .training import ITVReg as ITVReg
from .training import TrainOptions as TrainOptions
from .training import fit as fit

__version__: str
