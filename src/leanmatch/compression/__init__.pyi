"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .calibration import Calibration as Calibration
from .convert import Conversion as Conversion
from .convert import compressed_layers as compressed_layers
from .convert import factorize as factorize
from .convert import finalize as finalize
from .costs import ModelCost as ModelCost
from .costs import model_cost as model_cost
from .distillation import DistillationWeights as DistillationWeights
from .distillation import Distilled as Distilled
from .layers import CompressedLayer as CompressedLayer
from .layers import FactoredEmbedding as FactoredEmbedding
from .layers import FactoredLinear as FactoredLinear
from .layers import LowRankLinear as LowRankLinear
from .layers import QuantizedEmbedding as QuantizedEmbedding
from .layers import QuantizedLinear as QuantizedLinear
from .patterns import default_spec as default_spec
from .spec import CompressionSpec as CompressionSpec
from .spec import LayerSpec as LayerSpec
from .spec import Rule as Rule
from .spec import Stack as Stack
from .stf.factorizer import STF as STF
from .stf.factorizer import STFSchedule as STFSchedule
from .trainers import CompressedCheckpoints as CompressedCheckpoints
