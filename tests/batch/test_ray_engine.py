"""The engine ray: the same bytes as the local engine, and what is killed goes on."""

from __future__ import annotations

import pytest
from batch_models import bytes_below, rows_of_shop, write_csv

ray = pytest.importorskip("ray", reason="the ray extra is not installed")

from leanmatch.batch import EncodeOptions, encode_files  # noqa: E402
from leanmatch.batch.ray_engine import run_on_ray  # noqa: E402
from leanmatch.errors import DataError, LeanmatchError, UsageError  # noqa: E402

SMALL = EncodeOptions(slice_bytes=200)


@pytest.fixture(scope="module")
def cluster():
    """A Ray of this machine, on loopback, that every call of the module shares."""
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


def test_equals_the_local_engine_to_the_byte_and_resumes(cluster, model, inputs, tmp_path):
    encode_files(model, [inputs], tmp_path / "whole", SMALL)
    out = tmp_path / "out"
    result = encode_files(model, [inputs], out, SMALL, engine="ray", workers=2)
    assert (result.rows, result.missing) == (72, 0)
    assert bytes_below(out) == bytes_below(tmp_path / "whole")
    (out / "parts" / "part-000003.parquet").unlink()
    (out / "complete.json").unlink()
    assert encode_files(model, [inputs], out, SMALL, engine="ray").written == 1
    assert bytes_below(out) == bytes_below(tmp_path / "whole")


def test_what_a_worker_raises_is_what_the_caller_sees(cluster, model, tmp_path):
    write_csv(tmp_path / "a.csv", [*rows_of_shop(0, 20), {"sku": "s20", "title": " ", "price": 1}])
    with pytest.raises(DataError, match=r"a\.csv:2\d column 'title': the text is missing or blank"):
        encode_files(model, [tmp_path / "a.csv"], tmp_path / "out", SMALL, engine="ray")


class Started(BaseException):
    """Ends a call when Ray has started."""


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_local_ray_that_starts_too_slowly_is_started_once_more(monkeypatch, failures):
    """What Ray 2.60 raises when its raylet has ended because an agent took more than 15 seconds."""
    outcomes = [Exception("The current node timed out during startup.")] * failures + [Started()]
    starts = []

    def init(**options):
        starts.append(options["address"])
        raise outcomes[len(starts) - 1]

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Started if failures < 2 else LeanmatchError) as caught:
        list(run_on_ray(None, [0], 1, None))
    assert starts == ["local"] * min(failures + 1, 2)
    if failures == 2:
        message = caught.value.for_command_line()
        assert "timed out during startup" in message and "--engine local --workers N" in message


def test_options_that_exclude_one_another(model, inputs, tmp_path):
    from leanmatch.batch import Shard

    with pytest.raises(UsageError, match="a shard is named for the engine ray"):
        encode_files(model, [inputs], tmp_path, SMALL, engine="ray", shard=Shard(0, 2))
    with pytest.raises(UsageError, match="an address is named without the engine ray"):
        encode_files(model, [inputs], tmp_path, SMALL, address="auto")
    with pytest.raises(UsageError, match="one of: local, ray"):
        encode_files(model, [inputs], tmp_path, SMALL, engine="dask")
