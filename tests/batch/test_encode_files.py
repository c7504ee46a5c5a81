"""leanmatch.batch.encode_files: every row once, in order, whatever happens on the way."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from batch_models import bytes_below, rows_of_shop, static_model, write_csv, write_jsonl, write_parquet

from leanmatch import load
from leanmatch.batch import EncodedFiles, EncodeOptions, Shard, encode_files
from leanmatch.batch.job import WriteError
from leanmatch.errors import DataError, FormatError, ModelError, UsageError
from leanmatch.models import PromptOptions

SMALL = EncodeOptions(slice_bytes=200)


def collected(folder):
    ids, texts, metadata, vectors = [], [], [], []
    for block in EncodedFiles.open(folder).blocks():
        ids += block.ids
        texts += block.texts
        metadata += block.metadata
        vectors.append(block.vectors)
    return ids, texts, metadata, np.concatenate(vectors)


@pytest.mark.parametrize("slice_bytes", [1, 200, 10**9])
def test_equals_one_call_of_the_encoder(model, inputs, tmp_path, slice_bytes):
    rows = rows_of_shop(0, 35) + rows_of_shop(35, 47) + rows_of_shop(47, 72)
    result = encode_files(model, [inputs], tmp_path / "out", EncodeOptions(slice_bytes=slice_bytes))
    assert (result.rows, result.missing, result.complete.rows) == (72, 0, 72)
    assert result.parts == {1: 35 + 12 + 3, 200: result.parts, 10**9: 1 + 1 + 3}[slice_bytes] > 4
    ids, texts, metadata, vectors = collected(tmp_path / "out")
    assert ids == [row["sku"] for row in rows]
    assert texts == [row["title"] for row in rows]
    assert np.array_equal(vectors, load(model).encode_document(texts, normalize_embeddings=True))
    assert np.abs(vectors).max() > 0.1
    assert metadata[36] == {"price": 18.0} and metadata[40] == {}


def test_every_format_packed_and_unpacked_gives_the_same(model, tmp_path):
    rows = rows_of_shop(0, 30)
    for row in rows:
        row["title"] = row["title"].replace("\n", " ")
    write_csv(tmp_path / "x.csv", rows)
    write_jsonl(tmp_path / "x.jsonl", rows)
    write_parquet(tmp_path / "x.parquet", rows)
    lines = [f"{row['sku']}\t{row['title']}\t{row['price'] or ''}\n" for row in rows]
    (tmp_path / "x.tsv").write_text("sku\ttitle\tprice\n" + "".join(lines), encoding="utf-8")
    semicolons = (tmp_path / "x.csv").read_text().replace(",", ";")
    (tmp_path / "semicolon.csv").write_text(semicolons)
    names = ["x.csv", "x.jsonl", "x.parquet", "x.tsv", "semicolon.csv"]
    for name in names[:4]:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    expected = None
    for name in [*names, *(f"{name}.gz" for name in names[:4])]:
        out = tmp_path / "out" / name
        encode_files(model, [tmp_path / name], out, SMALL)
        ids, texts, metadata, vectors = collected(out)
        if name == "semicolon.csv":
            texts = [text.replace(";", ",") for text in texts]
        shown = ids, texts, [{key: float(value) for key, value in row.items()} for row in metadata]
        expected = expected or shown
        assert shown == expected, name
        assert vectors.shape == (30, 10)


def test_shards_together_equal_one_run_to_the_byte(model, inputs, tmp_path):
    encode_files(model, [inputs], tmp_path / "whole", SMALL)
    for index in (2, 0, 1):
        result = encode_files(model, [inputs], tmp_path / "out", SMALL, shard=Shard(index, 3))
        assert (result.complete is not None) == (index == 1)
    assert bytes_below(tmp_path / "whole") == bytes_below(tmp_path / "out")


def test_worker_processes_equal_one_process_to_the_byte(model, inputs, tmp_path):
    encode_files(model, [inputs], tmp_path / "whole", SMALL)
    result = encode_files(model, [inputs], tmp_path / "out", SMALL, workers=2)
    assert result.rows == 72
    assert bytes_below(tmp_path / "whole") == bytes_below(tmp_path / "out")


def test_the_same_call_does_only_what_is_missing(model, inputs, tmp_path):
    out = tmp_path / "out"
    first = encode_files(model, [inputs], out, SMALL)
    whole = bytes_below(out)
    (out / "parts" / "part-000001.parquet").unlink()
    (out / "complete.json").unlink()
    again = encode_files(model, [inputs], out, SMALL)
    assert (again.written, again.complete) == (1, first.complete)
    assert bytes_below(out) == whole
    assert encode_files(model, [inputs], out, SMALL).written == 0


def test_touched_files_are_the_same_input_and_changed_ones_are_not(model, inputs, tmp_path):
    encode_files(model, [inputs], tmp_path / "out", SMALL)
    os.utime(inputs / "a.csv", (1, 1))
    assert encode_files(model, [inputs], tmp_path / "out", SMALL).written == 0
    content = (inputs / "a.csv").read_bytes()
    (inputs / "a.csv").write_bytes(content.replace(b"s34,", b"s99,"))
    with pytest.raises(DataError, match=r"of other input: a\.csv has changed"):
        encode_files(model, [inputs], tmp_path / "out", SMALL)
    (inputs / "a.csv").write_bytes(content)
    write_csv(inputs / "z.csv", rows_of_shop(100, 102))
    with pytest.raises(DataError, match=r"z\.csv is new"):
        encode_files(model, [inputs], tmp_path / "out", SMALL)
    result = encode_files(model, [inputs], tmp_path / "out", SMALL, overwrite=True)
    assert result.complete.rows == 74


def test_parts_of_another_model_role_or_precision_are_refused(model, inputs, tmp_path):
    encode_files(model, [inputs], tmp_path / "out")
    before = bytes_below(tmp_path / "out")
    other = static_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="vectors of another model: the model was"):
        encode_files(other, [inputs], tmp_path / "out")
    prompts = EncodeOptions(prompts=PromptOptions(document="red "))
    with pytest.raises(ModelError, match=r"the document prompt was '' .* is 'red '"):
        encode_files(model, [inputs], tmp_path / "out", prompts)
    with pytest.raises(DataError, match="precision 'float32', not 'int8'"):
        encode_files(model, [inputs], tmp_path / "out", EncodeOptions(precision="int8"))
    with pytest.raises(DataError, match="role 'document', not 'query'"):
        encode_files(model, [inputs], tmp_path / "out", EncodeOptions(role="query"))
    assert bytes_below(tmp_path / "out") == before


def test_a_part_from_elsewhere_is_refused(model, inputs, tmp_path):
    encode_files(model, [inputs], tmp_path / "out")
    encode_files(model, [inputs], tmp_path / "half", EncodeOptions(precision="float16"))
    name = "parts/part-000002.parquet"
    (tmp_path / "out" / name).write_bytes((tmp_path / "half" / name).read_bytes())
    with pytest.raises(FormatError, match=r"part-000002\.parquet: a part of another encoding"):
        encode_files(model, [inputs], tmp_path / "out")


@pytest.mark.parametrize(("precision", "worst"), [("float32", 0), ("float16", 1e-6), ("int8", 2e-4)])
def test_precisions_of_stored_vectors(model, inputs, tmp_path, precision, worst):
    encode_files(model, [inputs], tmp_path / "out", EncodeOptions(precision=precision))
    _, texts, _, vectors = collected(tmp_path / "out")
    cosines = (
        vectors.astype(np.float64) * load(model).encode_document(texts, normalize_embeddings=True)
    ).sum(axis=1)
    norms = np.linalg.norm(vectors, axis=1)
    assert 1 - cosines.min() <= worst + 1e-7
    assert np.abs(norms - 1).max() < 1e-6
    if precision != "float32":
        assert 1 - cosines.min() > 1e-9  # they were rounded
    kind = pq.read_schema(tmp_path / "out" / "parts" / "part-000000.parquet").field("vector").type
    assert kind.list_size == 10
    assert str(kind.value_type) == {"float32": "float", "float16": "halffloat", "int8": "int8"}[precision]


def test_roles_take_their_prompts(model, inputs, tmp_path):
    prompts = PromptOptions(query="red ", document="blue ")
    for role, word in (("query", "red "), ("document", "blue ")):
        encode_files(model, [inputs], tmp_path / role, EncodeOptions(role=role, prompts=prompts))
        _, texts, _, vectors = collected(tmp_path / role)
        assert np.array_equal(
            vectors, load(model).encode([word + text for text in texts], normalize_embeddings=True)
        )


def test_identifiers_that_come_twice(model, tmp_path):
    write_csv(tmp_path / "a.csv", rows_of_shop(0, 10))
    write_csv(tmp_path / "b.csv", [*rows_of_shop(20, 22), {"sku": "s7", "title": "lamp", "price": 3}])
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    # rows 0 and 7 of a.csv have two lines: the header is line 1, s0 lines 2 and 3, s7 begins on line 10
    with pytest.raises(DataError, match=r"twice: at a\.csv:1[01] and at b\.csv:[45].*'s7'"):
        encode_files(model, files, tmp_path / "out")
    assert not (tmp_path / "out" / "complete.json").exists()
    with pytest.raises(DataError, match="has not finished"):
        EncodedFiles.open(tmp_path / "out")
    result = encode_files(model, files, tmp_path / "out", EncodeOptions(on_duplicate="last"))
    assert (result.written, result.complete.rows) == (0, 12)
    ids, texts, _, _ = collected(tmp_path / "out")
    assert len(set(ids)) == len(ids) == 12
    assert texts[ids.index("s7")] == "lamp"


def test_a_column_that_one_file_lacks_is_told_before_anything_is_encoded(model, tmp_path):
    for number in range(9):
        write_csv(tmp_path / f"{number}.csv", rows_of_shop(number * 10, number * 10 + 5))
    renamed = [{"sku": row["sku"], "name": row["title"]} for row in rows_of_shop(90, 95)]
    write_csv(tmp_path / "9.csv", renamed)
    files = sorted(tmp_path.glob("*.csv"))
    with pytest.raises(
        DataError, match=r"9\.csv: there is no column 'title'; the columns found are: sku, name"
    ):
        encode_files(model, files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("slice_bytes", [1, 10**6])
def test_bad_rows_are_named_by_their_line_or_left_out(model, tmp_path, slice_bytes):
    path = tmp_path / "a.csv"
    path.write_text('sku,title\ns0,"red\nlamp"\n,blue lamp\ns2,\ns3,usb dock\n', encoding="utf-8")
    options = EncodeOptions(slice_bytes=slice_bytes)
    with pytest.raises(DataError, match=r"a\.csv:4 column 'sku': the identifier is missing"):
        encode_files(model, [path], tmp_path / "out", options)
    skipping = EncodeOptions(slice_bytes=slice_bytes, on_error="skip")
    result = encode_files(model, [path], tmp_path / "skip", skipping)
    assert (result.rows, result.skipped, result.complete.skipped) == (2, 2, 2)
    assert collected(tmp_path / "skip")[0] == ["s0", "s3"]


def test_rows_without_identifiers_are_called_by_file_and_line(model, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "red"}\n\n{"text": "blue"}\n', encoding="utf-8")
    encode_files(model, [tmp_path / "a.jsonl"], tmp_path / "out", SMALL)
    assert collected(tmp_path / "out")[0] == ["a.jsonl:1", "a.jsonl:3"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"sku,title\n", "hold no rows|no items|no rows"),
        ("a.parquet", b"PAR1 no", "no readable Parquet file"),
        ("a.xlsx", b"x", "format is not known"),
        ("a.csv.gz", b"no gzip", "gzip data cannot be read"),
        ("a.jsonl", b"\xff\xfea", "UTF-16"),
    ],
)
def test_inputs_that_cannot_be_read(model, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        encode_files(model, [tmp_path / name], tmp_path / "out")


def test_places_that_do_not_exist_or_hold_other_files(model, inputs, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        encode_files(model, [tmp_path / "absent.csv"], tmp_path / "out")
    with pytest.raises(DataError, match="named twice"):
        encode_files(model, [inputs / "a.csv", inputs / "a.csv"], tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files, such as note\.txt"):
        encode_files(model, [inputs], tmp_path / "mine")
    with pytest.raises(UsageError, match="cannot be opened"):
        encode_files(model, ["nosuchscheme://x/y.csv"], tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_a_full_disk_loses_nothing(model, inputs, tmp_path, monkeypatch):
    flushed = []

    def fill(path):
        if path.is_file():
            flushed.append(path)
            if len(flushed) > 3:
                path.write_bytes(b"half")
                raise OSError(28, "No space left on device")

    monkeypatch.setattr("leanmatch.files.fsync_path", fill)
    with pytest.raises(WriteError, match="No space left"):
        encode_files(model, [inputs], tmp_path / "out", SMALL)
    left = bytes_below(tmp_path / "out")
    assert len(left) == 3 and all(".partial" not in name for name in left)
    monkeypatch.undo()
    encode_files(model, [inputs], tmp_path / "out", SMALL)
    encode_files(model, [inputs], tmp_path / "whole", SMALL)
    assert bytes_below(tmp_path / "out") == bytes_below(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL")
def test_killed_at_random_moments_the_parts_are_those_of_an_undisturbed_run(model, tmp_path):
    source = write_csv(tmp_path / "a.csv", rows_of_shop(0, 150))
    encode_files(model, [source], tmp_path / "whole", EncodeOptions(slice_bytes=20))
    out = tmp_path / "out"
    processes = multiprocessing.get_context("forkserver")  # it imports once for all of them
    processes.set_forkserver_preload(["leanmatch.batch.run", "leanmatch.batch.plan"])
    arguments = model, [source], out, EncodeOptions(slice_bytes=20)
    rng = np.random.default_rng(0)
    interrupted = 0
    for _ in range(8):
        child = processes.Process(target=encode_files, args=arguments)
        child.start()
        wanted = len(list(out.glob("parts/*"))) + int(rng.integers(1, 25))
        while child.is_alive() and len(list(out.glob("parts/part-*"))) < wanted:
            time.sleep(0.001)
        child.kill()
        child.join()
        interrupted += child.exitcode == -signal.SIGKILL
    assert interrupted >= 3
    encode_files(*arguments)
    left = {name: content for name, content in bytes_below(out).items() if ".partial-" not in name}
    assert left == bytes_below(tmp_path / "whole")


LIMITED = """
import resource, sys
from leanmatch.cli.app import main
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
sys.argv[0] = "leanmatch"
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_a_disk_that_takes_no_more_in_mid_run_loses_nothing(model, tmp_path):
    """A part is larger than any file may be: the system refuses the write, as it does on a full disk."""
    rows = rows_of_shop(0, 60)
    noise = np.random.default_rng(0).integers(0x4E00, 0x9FFF, 30_000)
    rows[40]["title"] = "".join(map(chr, noise))  # does not compress
    write_parquet(tmp_path / "a.parquet", rows)
    encode_files(model, [tmp_path / "a.parquet"], tmp_path / "whole")
    arguments = ["encode", model, tmp_path / "a.parquet", "-o", tmp_path / "out"]
    for _ in range(2):  # the second run begins where the first one ended
        command = [sys.executable, "-c", LIMITED, *arguments]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        assert run.returncode == 1 and "could not be written" in run.stderr, run.stderr
        assert "finished parts are kept" in " ".join(run.stderr.split())
        left = bytes_below(tmp_path / "out")
        assert sorted(left) == ["manifest.json", *(f"parts/part-00000{n}.parquet" for n in range(4))]
    subprocess.run([sys.executable, "-m", "leanmatch", *arguments], check=True)
    assert bytes_below(tmp_path / "out") == bytes_below(tmp_path / "whole")


WORKERS = """
import sys
from leanmatch.batch import EncodeOptions, encode_files
if __name__ == "__main__":
    encode_files(sys.argv[1], [sys.argv[2]], sys.argv[3], EncodeOptions(slice_bytes=20), workers=2)
"""


def workers_of(pid):
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_workers_end_with_what_started_them_and_a_killed_worker_is_reported(model, tmp_path):
    source = write_csv(tmp_path / "a.csv", rows_of_shop(0, 300))
    encode_files(model, [source], tmp_path / "whole", EncodeOptions(slice_bytes=20))
    script, out = tmp_path / "workers.py", tmp_path / "out"
    script.write_text(WORKERS, encoding="utf-8")
    arguments = [sys.executable, script, model, source, out]

    def begun():
        """A run that has written some more parts, and its workers."""
        before = len(list(out.glob("parts/part-*")))
        child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        until(lambda: len(list(out.glob("parts/part-*"))) > before + 5)
        return child, workers_of(child.pid)

    child, workers = begun()
    assert len(workers) == 2
    child.kill()
    child.wait()
    until(lambda: not any(map(is_running, workers)))
    assert not (out / "complete.json").exists()
    child, workers = begun()
    os.kill(workers[0], signal.SIGKILL)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 1 and "a worker process was killed" in said and "fewer workers" in said
    assert not (out / "complete.json").exists()
    assert subprocess.run(arguments, check=False).returncode == 0
    left = {name: content for name, content in bytes_below(out).items() if ".partial-" not in name}
    assert left == bytes_below(tmp_path / "whole")


def test_memory_of_a_manifest_that_is_damaged_or_newer(model, inputs, tmp_path):
    out = tmp_path / "out"
    encode_files(model, [inputs], out)
    manifest = out / "manifest.json"
    content = manifest.read_text(encoding="utf-8")
    for damaged, message in (
        (content[:100], "no manifest of vectors"),
        (content.replace('"role": "document"', '"role": "query"'), "changed by hand"),
        (json.dumps({**json.loads(content), "version": 99}), "newer than"),
        ("[]", "no manifest of vectors"),
    ):
        manifest.write_text(damaged, encoding="utf-8")
        with pytest.raises(FormatError, match=message):
            encode_files(model, [inputs], out)
    manifest.write_text(content, encoding="utf-8")
    part = out / "parts" / "part-000000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    (out / "complete.json").unlink()
    with pytest.raises(FormatError, match=r"part-000000\.parquet: no readable part"):
        encode_files(model, [inputs], out)


def test_shards_of_schedulers():
    array = {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert Shard.parse("slurm", array) == Shard(2, 4)
    for text, environment in (
        ("slurm", {}),
        ("kubernetes/4", {}),
        ("kubernetes", {"JOB_COMPLETION_INDEX": "1"}),
        ("4/4", {}),
        ("x", {}),
        ("1/0", {}),
    ):
        with pytest.raises(UsageError):
            Shard.parse(text, environment)


def test_options_that_do_not_exist():
    for wrong in ({"role": "x"}, {"precision": "int4"}, {"on_error": "x"}, {"on_duplicate": "first"}):
        with pytest.raises(UsageError, match="one of: "):
            EncodeOptions(**wrong)
