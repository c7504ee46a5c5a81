"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .encoder import NativeEncoder as NativeEncoder
from .fallback import FallbackEncoder as FallbackEncoder
from .fallback import FallbackWarning as FallbackWarning
from .kernels.choice import LayerChoice as LayerChoice
from .kernels.paths import PRECISIONS as PRECISIONS
from .loading import load as load
from .reranker import NativeReranker as NativeReranker
from .reranker import load_reranker as load_reranker
from .tables import runtime_choices as runtime_choices
from .twin import TwinEncoders as TwinEncoders
