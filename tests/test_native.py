"""The CPU probe against what the kernel says, planted registers, the levels and what limits them."""

from __future__ import annotations

import ast
import importlib
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest

from leanmatch import native
from leanmatch.errors import UsageError

AVX_STATE, AVX512_STATE, AMX_STATE = 0x6, 0xE6, 0x60000
EVERY_BIT = {name: 0xFFFFFFFF for name in ("leaf1_ecx", "leaf7_ebx", "leaf7_ecx", "leaf7_edx", "leaf7_1_eax")}


@pytest.fixture(scope="module")
def extension() -> ModuleType:
    """The compiled module. It is a part of the product: where it is absent, these tests fail."""
    return native.load()


def test_features_equal_those_of_the_kernel(extension: ModuleType) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        pytest.skip("no /proc/cpuinfo on this system")
    label = "flags" if platform.machine() == "x86_64" else "Features"
    line = next(text for text in cpuinfo.read_text().splitlines() if text.startswith(label))
    flags = set(line.partition(":")[2].split())
    features = native.cpu_features()
    assert features, "no probe for this architecture"
    assert features == {name: name in flags for name in features}
    assert any(features.values()), "a probe that finds nothing proves nothing"


def test_no_register_state_means_no_vectors(extension: ModuleType) -> None:
    features = extension.decode_x86(**EVERY_BIT, xcr0=0)
    assert {name for name, usable in features.items() if usable} == {"sse4_2"}


@pytest.mark.parametrize(
    ("xcr0", "prefixes"),
    [
        (AVX_STATE, ("sse", "avx", "fma", "f16c")),
        (AVX512_STATE, ("sse", "avx", "fma", "f16c")),
        (AVX_STATE | AMX_STATE, ("sse", "avx", "fma", "f16c", "amx")),
        (AVX512_STATE & ~0x20, ("sse", "avx", "fma", "f16c")),  # opmask registers not saved
    ],
)
def test_state_bits_gate_each_family(extension: ModuleType, xcr0: int, prefixes: tuple[str, ...]) -> None:
    features = extension.decode_x86(**EVERY_BIT, xcr0=xcr0)
    avx512 = xcr0 & AVX512_STATE == AVX512_STATE
    expected = {name: name.startswith(prefixes) and (avx512 or "avx512" not in name) for name in features}
    assert features == expected


@pytest.mark.parametrize(
    ("register", "bit", "name"),
    [
        ("leaf1_ecx", 12, "fma"),
        ("leaf1_ecx", 20, "sse4_2"),
        ("leaf1_ecx", 28, "avx"),
        ("leaf1_ecx", 29, "f16c"),
        ("leaf7_ebx", 5, "avx2"),
        ("leaf7_ebx", 16, "avx512f"),
        ("leaf7_ebx", 17, "avx512dq"),
        ("leaf7_ebx", 30, "avx512bw"),
        ("leaf7_ebx", 31, "avx512vl"),
        ("leaf7_ecx", 1, "avx512vbmi"),
        ("leaf7_ecx", 11, "avx512_vnni"),
        ("leaf7_edx", 22, "amx_bf16"),
        ("leaf7_edx", 24, "amx_tile"),
        ("leaf7_edx", 25, "amx_int8"),
        ("leaf7_1_eax", 4, "avx_vnni"),
        ("leaf7_1_eax", 5, "avx512_bf16"),
    ],
)
def test_each_bit_is_its_own_feature(extension: ModuleType, register: str, bit: int, name: str) -> None:
    features = extension.decode_x86(**{register: 1 << bit}, xcr0=AVX512_STATE | AMX_STATE)
    assert {feature for feature, usable in features.items() if usable} == {name}


def test_levels_need_only_features_that_the_probe_knows(extension: ModuleType) -> None:
    levels = extension.levels()
    assert next(iter(levels)) == "portable"
    assert levels["portable"] == ()
    assert {name for needs in levels.values() for name in needs} <= set(native.cpu_features())


def test_the_limit_is_read_at_every_call(extension: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.LIMIT_VARIABLE, raising=False)
    before = native.variants()
    monkeypatch.setenv(native.LIMIT_VARIABLE, "portable")
    limited = native.variants()
    assert [name for name, variant in limited.items() if variant.runs] == ["portable"]
    assert list(limited) == list(before)
    monkeypatch.setenv(native.LIMIT_VARIABLE, "")
    assert native.variants() == before


TABLE: dict[str, tuple[str, ...]] = {"portable": (), "small": ("a",), "middle": ("a", "b"), "large": ("c",)}


def test_each_level_runs_by_its_own_features() -> None:
    resolved = native.resolve_variants(TABLE, {"a": True, "b": False, "c": True}, None)
    assert {name: variant.runs for name, variant in resolved.items()} == {
        "portable": True,
        "small": True,
        "middle": False,
        "large": True,
    }
    assert resolved["middle"].why_not == "the CPU or the operating system lacks b"


def test_a_limit_keeps_the_reason_of_a_level_that_could_not_run_anyway() -> None:
    resolved = native.resolve_variants(TABLE, {"a": True, "c": True}, "small")
    assert resolved["small"].runs
    assert resolved["middle"].why_not == "the CPU or the operating system lacks b"
    assert resolved["large"] == native.Variant(("c",), False, "excluded by LEANMATCH_CPU=small")


def test_unknown_limit_lists_the_levels_that_run() -> None:
    with pytest.raises(UsageError, match=r"'sse9' is not a level(.|\n)*choose one of: portable, small$"):
        native.resolve_variants(TABLE, {"a": True}, "sse9")


def test_limit_that_the_cpu_cannot_run() -> None:
    with pytest.raises(UsageError, match=r"LEANMATCH_CPU=large cannot run here: .* lacks c\n"):
        native.resolve_variants(TABLE, {"a": True}, "large")


def test_extension_that_was_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(native.NativeError, match=r"is not in .*leanmatch(.|\n)*remedy: pip install \."):
        native.load()


def test_stubs_without_the_extension_count_as_never_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leanmatch_stubs_alone").mkdir()
    (tmp_path / "leanmatch_stubs_alone" / "__init__.pyi").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(native, "_EXTENSION", "leanmatch_stubs_alone")
    with pytest.raises(native.NativeError, match=r"is not in .*leanmatch(.|\n)*remedy: pip install \."):
        native.load()


def test_stubs_that_the_build_makes_name_what_the_extension_has(extension: ModuleType) -> None:
    folder = Path(extension.__file__ or "").parent / "_native"
    if not folder.is_dir():
        pytest.skip("the source tree has no stubs of the extension; an installed build has")
    for stub, module in {"__init__": extension, "linear": extension.linear, "scan": extension.scan}.items():
        tree = ast.parse((folder / f"{stub}.pyi").read_text(encoding="utf-8"))
        named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        named |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
        named |= {a.asname for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names if a.asname}
        assert named == {name for name in dir(module) if not name.startswith("_")}


def test_extension_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "leanmatch_broken_extension.abi3.so"
    broken.write_bytes(b"this is no shared object")
    if sys.platform == "win32":
        pytest.skip("extensions have another suffix here")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(native, "_EXTENSION", "leanmatch_broken_extension")
    with pytest.raises(native.NativeError, match=r"does not load: .*(.|\n)*remedy: build it again"):
        native.load()


def test_a_foreign_module_that_is_missing_is_not_blamed_on_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        native.load()
