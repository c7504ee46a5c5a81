"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .site import SavedSite as SavedSite
from .site import export_site as export_site
