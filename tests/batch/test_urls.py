"""Inputs and output on S3: the real client of pyarrow against a server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_models import bytes_below, rows_of_shop, write_csv

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")

from leanmatch.batch import EncodedFiles, EncodeOptions, encode_files  # noqa: E402
from leanmatch.batch.job import WriteError  # noqa: E402
from leanmatch.batch.locations import Folder  # noqa: E402
from leanmatch.errors import DataError  # noqa: E402

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

    url.server = server
    yield url
    server.stop()


def upload(url, path: Path):
    folder = Folder(url)
    folder.put(path.name, path)


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


def test_an_address_without_a_server(s3, model, tmp_path):
    place = s3("in")
    s3.server.stop()
    with pytest.raises(DataError, match="cannot be read"):
        encode_files(model, [place], tmp_path / "out")
