"""Inputs and output on S3: the real client of pyarrow against a server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_models import bytes_below, rows_of_shop, write_csv

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")

from leanmatch.batch import EncodedFiles, EncodeOptions, encode_files  # noqa: E402
from leanmatch.batch.job import WriteError  # noqa: E402
from leanmatch.batch.locations import Folder  # noqa: E402
from leanmatch.errors import DataError, UsageError  # noqa: E402

SMALL = EncodeOptions(slice_bytes=200)


@pytest.fixture
def s3(monkeypatch):
    """``s3("name")``: a URL in a bucket of a server that lives as long as the test; and the server."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    query = f"?scheme=http&endpoint_override=127.0.0.1%3A{port}&region=us-east-1"
    Folder(f"s3://shop/{query}&allow_bucket_creation=true").filesystem.create_dir("shop")

    def url(name):
        return f"s3://shop/{name}{query}"

    def restart():
        """The server again, with what it held, at the same address."""
        url.server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=port)
        url.server.start()

    url.server, url.restart = server, restart
    yield url
    url.server.stop()


def upload(url, path: Path):
    Folder(url).put_bytes(path.name, path.read_bytes())


def test_from_s3_to_s3_equals_local_files_to_the_byte(s3, model, tmp_path):
    (tmp_path / "in").mkdir()
    for name, rows in (("a.csv", rows_of_shop(0, 30)), ("b.csv", rows_of_shop(30, 50))):
        upload(s3("in"), write_csv(tmp_path / "in" / name, rows))
    encode_files(model, [tmp_path / "in"], tmp_path / "local", SMALL)
    result = encode_files(model, [s3("in")], s3("out"), SMALL)
    assert (result.rows, result.missing) == (50, 0)
    remote = Folder(s3("out"))
    parts = {f"parts/{name}": remote.read(f"parts/{name}") for name in remote.sizes("parts")}
    local = bytes_below(tmp_path / "local")
    assert parts == {name: content for name, content in local.items() if name.startswith("parts/")}
    assert remote.read("complete.json") == local["complete.json"]
    assert sum(len(block.ids) for block in EncodedFiles.open(s3("out")).blocks()) == 50
    remote.filesystem.delete_file(remote.path("parts/part-000002.parquet"))
    remote.filesystem.delete_file(remote.path("complete.json"))
    assert encode_files(model, [s3("in")], s3("out"), SMALL).written == 1


def test_a_connection_that_is_lost_leaves_whole_parts(s3, model, tmp_path):
    source = write_csv(tmp_path / "a.csv", rows_of_shop(0, 40))
    seen = []

    def stop(note, parts):
        seen.append(note)
        if len(seen) == 3:
            s3.server.stop()

    with pytest.raises((WriteError, DataError), match=r"could not be written|cannot be read"):
        encode_files(model, [source], s3("lost"), SMALL, progress=stop)
    assert len(seen) == 3
    s3.restart()
    result = encode_files(model, [source], s3("lost"), SMALL)
    assert (result.missing, result.rows) == (0, 40 - sum(note.rows for note in seen))
    encode_files(model, [source], tmp_path / "whole", SMALL)
    remote = Folder(s3("lost"))
    names = remote.sizes()
    assert {name: remote.read(name) for name in names} == bytes_below(tmp_path / "whole")


def test_an_address_without_a_server(s3, model, tmp_path):
    place = s3("in")
    s3.server.stop()
    with pytest.raises(DataError, match="cannot be read"):
        encode_files(model, [place], tmp_path / "out")


@pytest.fixture(params=["local", "memory", "s3"])
def output(request, tmp_path):
    """An output folder here, in an fsspec filesystem and in a bucket."""
    if request.param == "memory":
        fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
        yield "memory://shop/out"
        fsspec.filesystem("memory").store.clear()
    else:
        name = f"{tmp_path.name}/out"  # a server in this process keeps the buckets of earlier tests
        yield tmp_path / "out" if request.param == "local" else request.getfixturevalue("s3")(name)


def test_overwrite_replaces_its_own_files_and_refuses_others(output, model, tmp_path):
    first = write_csv(tmp_path / "a.csv", rows_of_shop(0, 20))
    second = write_csv(tmp_path / "b.csv", rows_of_shop(20, 30))
    encode_files(model, [first], output, SMALL)
    folder = Folder(output)
    folder.put_bytes(".partial-killed", b"half a manifest")
    folder.put_bytes("parts/.partial-killed", b"half a part")
    before = folder.sizes()
    for foreign in ("thesis.txt", "parts/thesis.parquet", "sub/manifest.json"):
        folder.put_bytes(foreign, b"years of work")
        with pytest.raises(UsageError, match=rf"did not write: {foreign}\n.*move that file elsewhere"):
            encode_files(model, [second], output, SMALL, overwrite=True)
        assert folder.sizes() == {**before, foreign: 13}
        folder.remove(foreign)
    assert encode_files(model, [second], output, SMALL, overwrite=True).complete.rows == 10
    after = folder.sizes()
    assert len(after) < len(before) and not any(".partial-" in name for name in after)


def test_overwrite_spares_what_only_looks_like_its_own(output, model, tmp_path):
    source = write_csv(tmp_path / "a.csv", rows_of_shop(0, 5))
    folder = Folder(output)
    files = {
        "parts/part-000000.parquet": b"of Spark",
        "complete.json": b"{}",
        "manifest.json": b'{"format": 3}',
    }
    for name, content in files.items():
        folder.put_bytes(name, content)
        with pytest.raises(UsageError, match=r"did not write: (complete\.json|parts/part-000000)"):
            encode_files(model, [source], output, SMALL, overwrite=True)
    assert {name: folder.read(name) for name in folder.sizes()} == files


def test_leftovers_of_a_call_killed_at_its_first_file_are_no_hindrance(output, model, tmp_path):
    Folder(output).put_bytes(".partial-killed-manifest.json", b"{")
    assert encode_files(model, [write_csv(tmp_path / "a.csv", rows_of_shop(0, 5))], output).complete.rows == 5
