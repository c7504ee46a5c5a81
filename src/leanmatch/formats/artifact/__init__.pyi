"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .contents import Artifact as Artifact
from .contents import LayerTensors as LayerTensors
from .contents import ModuleConfig as ModuleConfig
from .reader import is_artifact as is_artifact
from .writer import SavedArtifact as SavedArtifact
from .writer import save_compressed as save_compressed
