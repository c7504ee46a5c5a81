"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .export import SavedWebModel as SavedWebModel
from .export import export_web_model as export_web_model
