"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .local import LocalStore as LocalStore
from .opening import open_store as open_store
from .protocol import Hit as Hit
from .protocol import OtherModelError as OtherModelError
from .protocol import Store as Store
from .protocol import StoreError as StoreError
from .protocol import StoreInfo as StoreInfo
from .protocol import UnreachableError as UnreachableError
from .push import push_items as push_items
from .recommend import recommend as recommend
from .retrying import Patience as Patience
from .source import Source as Source
from .source import source_of as source_of
