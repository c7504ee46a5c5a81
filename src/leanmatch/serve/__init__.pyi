"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .api.app import create_app as create_app
from .client import Client as Client
from .options import Limits as Limits
from .options import ServeOptions as ServeOptions
from .running import run_server as run_server
