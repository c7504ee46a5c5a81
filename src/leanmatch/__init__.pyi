"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .data import ItemTable as ItemTable
from .data import PairTable as PairTable
from .data import SplitOptions as SplitOptions
from .data import read_items as read_items
from .data import read_pairs as read_pairs
from .data import split_pairs as split_pairs
from .errors import DataError as DataError
from .errors import FormatError as FormatError
from .errors import LeanmatchError as LeanmatchError
from .errors import MissingExtraError as MissingExtraError
from .errors import ModelError as ModelError
from .errors import UsageError as UsageError
from .formats import load_encoder as load_encoder
from .formats import load_matcher as load_matcher
from .formats import save_matcher as save_matcher
from .index import Recommender as Recommender
from .interventions import TokenImportance as TokenImportance
from .interventions import importance as importance
from .metrics import EvaluationOptions as EvaluationOptions
from .metrics import evaluate as evaluate
from .report import DiagnoseOptions as DiagnoseOptions
from .report import Diagnosis as Diagnosis
from .report import diagnose as diagnose
from .runtime import load as load
from .training import ITVReg as ITVReg
from .training import MaskingLoss as MaskingLoss
from .training import OutReg as OutReg
from .training import PlainLoss as PlainLoss
from .training import RegularizerOptions as RegularizerOptions
from .training import ScheduleOptions as ScheduleOptions
from .training import TrainOptions as TrainOptions
from .training import fit as fit

__version__: str
