"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .check import PairReport as PairReport
from .check import check_pairs as check_pairs
from .items import ItemTable as ItemTable
from .problems import SkippedRow as SkippedRow
from .readers.items import read_items as read_items
from .readers.pairs import read_pairs as read_pairs
from .splitting.leakage import LeakageReport as LeakageReport
from .splitting.manifest import load_split as load_split
from .splitting.manifest import split_from_json as split_from_json
from .splitting.manifest import write_manifest as write_manifest
from .splitting.options import SplitOptions as SplitOptions
from .splitting.parts import Split as Split
from .splitting.split import split_pairs as split_pairs
from .table import PairTable as PairTable
from .text_form import normalized_text as normalized_text
from .writers import write_pairs as write_pairs
