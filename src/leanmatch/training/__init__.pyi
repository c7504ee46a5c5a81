"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .losses import DistillationLoss as DistillationLoss
from .losses import ITVReg as ITVReg
from .losses import MaskingLoss as MaskingLoss
from .losses import OutReg as OutReg
from .losses import PlainLoss as PlainLoss
from .options import RegularizerOptions as RegularizerOptions
from .options import ScheduleOptions as ScheduleOptions
from .options import TrainOptions as TrainOptions
from .recipe import TrainResult as TrainResult
from .recipe import fit as fit
from .selection.evaluator import PairTableEvaluator as PairTableEvaluator
