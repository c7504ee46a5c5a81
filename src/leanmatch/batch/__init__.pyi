"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .encode import Encode as Encode
from .options import EncodeOptions as EncodeOptions
from .options import Shard as Shard
from .run import EncodeResult as EncodeResult
from .run import encode_files as encode_files
from .vectors import EncodedFiles as EncodedFiles
