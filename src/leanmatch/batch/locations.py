"""Files and folders by path or URL, through pyarrow's filesystems (``s3://``, ``gs://``, ...)."""

from __future__ import annotations

import io
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from leanmatch.data.arrow import pa
from leanmatch.data.readers.sources import FORMATS
from leanmatch.errors import DataError, UsageError
from leanmatch.files import atomic_file

ENDINGS = tuple(ending + packed for ending in FORMATS for packed in ("", ".gz"))
COPY_BYTES = 1 << 22
PARTIAL = ".partial-"
"""Beginning of the temporary names of files that are being written."""


def resolve(place: str | Path) -> tuple[Any, str]:
    """The pyarrow filesystem of a path or URL, and the path in it.

    fsspec answers for schemes that pyarrow does not know, where it is installed.

    Raises:
        UsageError: a URL of a scheme that neither knows.
    """
    from pyarrow import fs

    text = str(place)
    if "://" not in text:
        return fs.LocalFileSystem(), str(Path(text).absolute())
    try:
        return fs.FileSystem.from_uri(text)  # type: ignore[no-any-return]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        try:
            import fsspec

            filesystem, path = fsspec.core.url_to_fs(text)
        except (ImportError, ValueError, OSError):
            raise UsageError(
                f"the URL {text} cannot be opened: {error}",
                remedy="use a path, or a URL that pyarrow or an installed fsspec filesystem knows, "
                "such as s3:// or gs://",
            ) from error
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), str(path)


@dataclass(frozen=True)
class InputFile:
    """A file that is read; it answers like a ``pathlib.Path`` where readers of tables ask.

    Attributes:
        filesystem: pyarrow's.
        path: the path in it.
        name: what messages and plans call it: its path below the place that was named.
        size: in bytes.
        modified: when it was changed, nanoseconds since 1970; 0 where that is not known.
    """

    filesystem: Any
    path: str
    name: str
    size: int
    modified: int

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        """The last ending of the name."""
        return PurePosixPath(self.path).suffix

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        """The bytes, seekable."""
        assert mode == "rb"
        return io.BufferedReader(self.open_native(), COPY_BYTES)

    def open_native(self) -> Any:
        """The same as a ``pyarrow.NativeFile``."""
        try:
            return self.filesystem.open_input_file(self.path)
        except OSError as error:
            raise DataError(
                f"the file cannot be opened: {error}", path=self.name, remedy="check the path and the rights"
            ) from error


def input_files(places: Sequence[str | Path]) -> list[InputFile]:
    """The files of some paths and URLs; folders stand for all tables below them, in the order of their names.

    Raises:
        DataError: a place that does not exist or holds no table, or one file that is named twice.
    """
    from pyarrow import fs

    if not places:
        raise UsageError("no input is named", remedy="name files or folders")
    files: list[InputFile] = []
    for place in places:
        filesystem, path = resolve(place)
        info = _info(filesystem, path, place)
        if info.type == fs.FileType.NotFound:
            raise DataError("there is no such file or folder", path=place, remedy="check the path")
        if info.type == fs.FileType.File:
            files.append(_input(filesystem, info, PurePosixPath(path).name))
            continue
        below = _listing(filesystem, path, place)
        tables = [entry for entry in below if entry.type == fs.FileType.File and _is_table(entry.path, path)]
        if not tables:
            raise DataError(
                f"the folder holds no table ({', '.join(FORMATS)}, each also with .gz)",
                path=place,
                remedy="name a folder with files, or the files",
            )
        root = path.rstrip("/") + "/"
        files += [_input(filesystem, entry, entry.path.removeprefix(root)) for entry in tables]
    twice = [file for i, file in enumerate(files) if any(file.path == other.path for other in files[:i])]
    if twice:
        raise DataError("the file is named twice", path=twice[0].path, remedy="name each file once")
    return _distinct_names(files)


def _distinct_names(files: list[InputFile]) -> list[InputFile]:
    """Full paths in place of names that two files share."""
    names = [file.name for file in files]
    return [
        file
        if names.count(file.name) == 1
        else InputFile(file.filesystem, file.path, file.path, file.size, file.modified)
        for file in files
    ]


def _is_table(path: str, root: str) -> bool:
    parts = PurePosixPath(path).relative_to(root).parts
    return path.lower().endswith(ENDINGS) and not any(part[:1] in "._" for part in parts)


def _input(filesystem: Any, info: Any, name: str) -> InputFile:
    return InputFile(filesystem, info.path, name, int(info.size or 0), int(info.mtime_ns or 0))


def _info(filesystem: Any, path: str, place: object) -> Any:
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise _unreachable(place, error) from error


def _listing(filesystem: Any, path: str, place: object) -> list[Any]:
    from pyarrow import fs

    try:
        return sorted(
            filesystem.get_file_info(fs.FileSelector(path, recursive=True)), key=lambda info: info.path
        )
    except OSError as error:
        raise _unreachable(place, error) from error


def _unreachable(place: object, error: OSError) -> DataError:
    return DataError(
        f"it cannot be read: {error}", path=place, remedy="check the address, the rights and the connection"
    )


class Folder:
    """The folder that parts are written to. A file is there whole or not at all."""

    def __init__(self, place: str | Path) -> None:
        from pyarrow import fs

        self.place = str(place)
        self.filesystem, self._path = resolve(place)
        self.is_local = isinstance(self.filesystem, fs.LocalFileSystem)

    def __str__(self) -> str:
        return self.place

    def path(self, name: str) -> str:
        """The path of a file in the filesystem."""
        return f"{self._path.rstrip('/')}/{name}"

    def sizes(self, below: str = "") -> dict[str, int]:
        """Name and size of the files below the folder or one of its folders; none where it does not exist."""
        from pyarrow import fs

        root = self.path(below) if below else self._path
        try:
            entries = self.filesystem.get_file_info(
                fs.FileSelector(root, recursive=True, allow_not_found=True)
            )
        except OSError as error:
            raise _unreachable(self.place, error) from error
        files = [entry for entry in entries if entry.type == fs.FileType.File]
        return {entry.path[len(root.rstrip("/")) + 1 :]: int(entry.size) for entry in files}

    def read(self, name: str) -> bytes | None:
        """A file's content, None where there is no such file."""
        from pyarrow import fs

        if _info(self.filesystem, self.path(name), self.place).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local path to write to; when the block ends, the file stands here under its name.

        In a local folder the path is a temporary name beside the file; elsewhere the file is uploaded under a
        temporary name. Then it is renamed. When the block raises, a file that was there is as it was.

        Raises:
            OSError: it could not be written.
        """
        if self.is_local:
            with atomic_file(self.path(name)) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory(prefix=PARTIAL) as scratch:
            local = Path(scratch) / "file"
            yield local
            self._upload(name, local)

    def _upload(self, name: str, local: Path) -> None:
        target = self.path(name)
        parent = target.rpartition("/")[0]
        temporary = f"{parent}/{PARTIAL}{uuid.uuid4().hex[:12]}-{Path(name).name}"
        self.filesystem.create_dir(parent, recursive=True)
        try:
            with local.open("rb") as source, self.filesystem.open_output_stream(temporary) as sink:
                shutil.copyfileobj(source, sink, COPY_BYTES)
            self.filesystem.move(temporary, target)
        except BaseException:
            _remove_quietly(self.filesystem, temporary)
            raise

    def put_bytes(self, name: str, content: bytes) -> None:
        """Write a small file, as :meth:`writing` does."""
        with self.writing(name) as path:
            path.write_bytes(content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.filesystem.delete_file(self.path(name))

    def remove_below(self, name: str) -> None:
        """Remove a file, or a folder with everything in it; nothing where there is neither."""
        from pyarrow import fs

        kind = _info(self.filesystem, self.path(name), self.place).type
        if kind == fs.FileType.File:
            self.remove(name)
        elif kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(name))


def _remove_quietly(filesystem: Any, path: str) -> None:
    with suppress(OSError, pa.ArrowException):
        filesystem.delete_file(path)
