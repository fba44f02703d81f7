"""Settings, seeds and the display registry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from workbench.base import display, settings
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator


@pytest.fixture
def user_config(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setattr(settings, "config_files", lambda: (Path("workbench.toml"), folder / "config.toml"))
    return folder / "config.toml"


def test_flags_come_before_environment_before_working_folder_before_user_file(user_config, monkeypatch):
    assert settings.setting("model", default="d") == "d"
    user_config.write_text('model = "user"\n')
    assert settings.setting("model", default="d") == "user"
    Path("workbench.toml").write_text('model = "folder"\n')
    assert settings.setting("model") == "folder"
    monkeypatch.setenv("WORKBENCH_MODEL", "environment")
    assert settings.setting("model") == "environment"
    assert settings.setting("model", "flag") == "flag"


def test_a_flag_of_zero_or_false_counts_as_given(user_config, monkeypatch):
    monkeypatch.setenv("WORKBENCH_SEED", "4")
    assert settings.setting("seed", 0) == 0


def test_a_broken_settings_file_is_named(user_config):
    Path("workbench.toml").write_text("model = \n")
    with pytest.raises(WorkbenchError, match=r"workbench\.toml is not valid TOML"):
        settings.setting("model")


def test_the_cache_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "c"))
    assert settings.cache_dir() == tmp_path / "c"
    monkeypatch.delenv("WORKBENCH_CACHE")
    assert "persona-workbench" in str(settings.cache_dir())


def test_derived_seeds_are_the_same_everywhere_and_differ_by_part():
    assert derive_seed("rollouts", 0, "evil") == 8980089623405012390
    seeds = {derive_seed(*parts) for parts in [("a", 1), ("a", 2), ("a", "1"), ("a1",), (1, "a")]}
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_repeats_itself_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    first, second = (torch.rand(3, generator=generator(derive_seed("x"))) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())


class Shown:
    pass


class ShownToo(Shown):
    pass


def test_a_display_is_found_for_a_class_and_those_derived_from_it(monkeypatch):
    monkeypatch.setattr(display, "_DISPLAYS", {})
    monkeypatch.setattr(display, "_PROVIDERS", [])
    assert display.html_for(Shown()) is None
    display.register(f"{__name__}.Shown", lambda value: f"<b>{type(value).__name__}</b>")
    assert display.html_for(ShownToo()) == "<b>ShownToo</b>"
    assert display.html_for(3) is None


def test_the_module_that_registers_displays_is_imported_when_the_first_value_is_shown(monkeypatch, tmp_path):
    (tmp_path / "late_displays.py").write_text(
        "from workbench.base.display import register\nregister('Shown', lambda value: 'late')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(display, "_DISPLAYS", {})
    monkeypatch.setattr(display, "_PROVIDERS", [])
    display.register_provider("late_displays")
    assert display.html_for(Shown()) == "late"


def test_a_settings_file_that_is_masked_is_an_empty_one_and_a_pipe_is_not_waited_for(tmp_path):
    from workbench.base.settings import read_config

    (tmp_path / "masked.toml").symlink_to(os.devnull)
    assert read_config(tmp_path / "masked.toml") == {} == read_config(tmp_path / "none.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(WorkbenchError, match="is a pipe"):
        read_config(tmp_path / "pipe.toml")
