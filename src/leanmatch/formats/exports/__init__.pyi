"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .dense import densify as densify
from .stock import SavedExport as SavedExport
from .stock import export_model as export_model
