"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .encoder import NativeEncoder as NativeEncoder
from .fallback import FallbackEncoder as FallbackEncoder
from .fallback import FallbackWarning as FallbackWarning
from .loading import load as load
from .path_choice import LayerChoice as LayerChoice
from .paths import PRECISIONS as PRECISIONS
from .tables import runtime_choices as runtime_choices
from .twin import TwinEncoders as TwinEncoders
