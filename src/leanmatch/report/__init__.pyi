"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose as diagnose
from .options import DiagnoseOptions as DiagnoseOptions
from .page import render_page as render_page
from .page import write_page as write_page
