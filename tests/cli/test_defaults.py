"""Settings: flag, environment, ./workbench.toml, the user's file; tables for flags of commands; mistakes with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.base import settings
from workbench.cli import defaults, recorded


@pytest.fixture
def files(tmp_path, monkeypatch):
    """(./workbench.toml, the user's config file) as functions that write them."""
    user = tmp_path / "user" / "config.toml"
    user.parent.mkdir()
    for module in (settings, defaults, recorded):  # imported before: else the patch would be what is put back
        monkeypatch.setattr(module, "config_files", lambda: (Path("workbench.toml"), user))
    for name in settings.SETTINGS:
        if name != "cache":
            monkeypatch.delenv(f"WORKBENCH_{name.upper()}", raising=False)
    return Path("workbench.toml").write_text, user.write_text


@pytest.fixture
def samples_of(workbench, monkeypatch):
    """The number of samples that a command would take, as the job sees it."""
    monkeypatch.setattr("workbench.cli.plan.plan_job", lambda config, folder, upto: {"samples": config.n_samples})

    def ask(*arguments) -> int:
        answer = workbench(*arguments, "--plan", "--json")
        assert answer.code == 0, answer.err
        return answer.json["samples"]

    return ask


def test_a_flag_beats_the_environment_beats_the_project_beats_the_user(samples_of, shelf, files, monkeypatch):
    project, user = files
    plan = ("extract", "evil")
    one = samples_of(*plan)
    user("samples = 2\n")
    assert samples_of(*plan) == 2 * one
    user("samples = 2\n[extract]\nsamples = 3\n")
    assert samples_of(*plan) == 3 * one, "in a file, the command's table is the stronger"
    project("samples = 4\n")
    project("[extract]\nsamples = 5\n")
    assert samples_of(*plan) == 5 * one
    assert samples_of("decompose", "evil") == 2 * one, "the table is of one command alone"
    monkeypatch.setenv("WORKBENCH_SAMPLES", "6")
    assert samples_of(*plan) == 6 * one
    assert samples_of(*plan, "--samples", 7) == 7 * one


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\nsampels = 2\n", 2, "did you mean `samples`?"),
        ("[reprot]\nsamples = 2\n", 1, "did you mean `report`?"),
        ("report = true\n", 1, "stand in a table of its name, [report]"),
        ("[[report]]\nsamples = 2\n", 1, "stand in a table of its name, [report]"),
        ("seed = 1\n[report]\nn_samples = 2\n", 3, "did you mean `report.samples`?"),
        ("[sae.tarin]\nengine = 'ray'\n", 1, "did you mean `sae.train`?"),
        ("[report]\nsamples = 'four'\n", 2, "valid integer"),
        ("[report]\nsamples = true\n", 2, "for switches"),
        ("[report]\nstrict = 'yes'\n", 2, "true or false"),
        ("[report]\njson = true\n", 2, "nobody knows"),
        ("samples = '4'\n", 1, "a whole number"),
        ("offline = 1\n", 1, "true or false"),
        ("[report]\nn_features = 0\n", 2, "1"),
        ("api_key = 'sk-1'\n", 1, "looks like a secret"),
        ("[judge.validate]\nhf_token = 'x'\n", 2, "looks like a secret"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line_and_what_was_meant(workbench, files, text, line, said):
    files[0](text)
    answer = workbench("traits", "list")
    assert answer.code == 2 and answer.out == "" and "Traceback" not in answer.err
    assert f"workbench.toml, line {line}" in answer.err and said in answer.err


def test_a_mistake_hides_neither_help_nor_doctor(workbench, files):
    files[0]("samples = \n")
    assert workbench("--help").code == 0 and workbench("extract", "--help").code == 0
    assert workbench("traits", "list").code == 2


def test_a_table_may_have_the_name_of_a_setting(workbench, files):
    files[0]("sae = 'x/y'\n['sae train']\nengine = 'ray'\n")
    value = workbench("config", "show", "--json").json
    assert value["flags"] == [{"command": "sae train", "flag": "engine", "value": "ray", "source": "workbench.toml, line 3"}]
    files[0]("[sae.train]\nengine = 'ray'\n")
    assert settings.setting("sae") is None


def test_library_code_reads_the_same_settings(workbench, files, monkeypatch):
    files[0]("model = 'a'\n")
    assert settings.find_setting("model") == settings.Found("model", "a", "workbench.toml, line 1")
    monkeypatch.setenv("WORKBENCH_MODEL", "b")
    assert settings.find_setting("model").source == "WORKBENCH_MODEL"
    monkeypatch.setenv("WORKBENCH_OFFLINE", "0")
    assert settings.setting("offline") is False


def test_config_shows_values_and_places_and_masks_secrets(workbench, files, monkeypatch):
    project, user = files
    user("dtype = 'bfloat16'\nbase_url = 'https://me:pass@host/v1'\n")
    project("samples = 2\n[report]\nsamples = 3\n")
    monkeypatch.setenv("WORKBENCH_API_KEY", "sk-very-secret")
    monkeypatch.delenv("WORKBENCH_REQUIRE_BROWSER", raising=False)
    monkeypatch.setenv("WORKBENCH_MODLE", "x")
    answer = workbench("config", "show", "--json")
    rows = {row["name"]: row for row in answer.json["settings"]}
    assert (rows["samples"]["value"], rows["samples"]["source"]) == (2, "workbench.toml, line 1")
    assert rows["dtype"]["source"].endswith("config.toml, line 1") and rows["seed"]["value"] is None
    assert "sk-very-secret" not in answer.out and "pass" not in rows["base_url"]["value"]
    assert answer.json["unknown"] == ["WORKBENCH_MODLE"]
    text = workbench("config", "show").out
    assert "sk-very-secret" not in text and "did you mean WORKBENCH_MODEL?" in text


def test_config_set_keeps_the_rest_of_the_file_and_refuses_what_would_not_be_read(workbench, files):
    project, _ = files
    project("# mine\nseed = 1  # always\n\n[report]\nsamples = 4\n")
    assert workbench("config", "set", "report.n-features", 20).code == 0
    assert workbench("config", "set", "seed", 7).code == 0
    assert workbench("config", "set", "model", "gemma3-270m").code == 0
    text = Path("workbench.toml").read_text()
    assert text == '# mine\nseed = 7\nmodel = "gemma3-270m"\n\n[report]\nsamples = 4\nn_features = 20\n'
    for key, value in (("report.smaples", 1), ("samples", "four"), ("api_key", "sk-1"), ("report.n-features", 0)):
        answer = workbench("config", "set", key, value)
        assert answer.code == 2 and "workbench.toml" in answer.err and "/tmp" not in answer.err
    assert Path("workbench.toml").read_text() == text


def test_config_path_names_both_files(workbench, files):
    found = workbench("config", "path", "--json").json["files"]
    assert [Path(row["file"]).name for row in found] == ["workbench.toml", "config.toml"]
    assert [row["exists"] for row in found] == [False, False]


@pytest.mark.parametrize("text", ["[cache.clean]\nyes = true\n", "[serve]\nallow_other_machines = true\n"])
def test_what_has_to_be_meant_each_time_stands_in_no_file(workbench, files, text):
    files[0](text)
    answer = workbench("cache", "clean")
    assert answer.code == 2 and "workbench.toml, line 2" in answer.err


def test_an_address_in_a_commands_table_is_shown_without_its_secrets(workbench, files):
    files[0]("base_url = 'http://h/v1?api_key=sekret'\n[report]\njudge_url = 'http://me:sek@ret@h/v1'\n")
    for flags in ((), ("--json",)):
        answer = workbench("config", "show", *flags)
        assert answer.code == 0 and "sek" not in answer.out and "ret@" not in answer.out


def test_odd_files_are_read_or_refused_in_words(workbench, files):
    Path("workbench.toml").write_bytes(b"\xef\xbb\xbfsamples = 2\n")  # as some editors write it
    assert workbench("config", "show", "--json").code == 0
    Path("workbench.toml").write_text(f"a = {'[' * 5000}{']' * 5000}")
    answer = workbench("config", "show")
    assert answer.code == 2 and "not valid TOML" in answer.err


@pytest.mark.parametrize("number", ["9" * 23, "-3", "a few"])
def test_a_number_that_cannot_be_meant_is_refused(workbench, monkeypatch, shelf, number):
    monkeypatch.setenv("WORKBENCH_SAMPLES", number)
    answer = workbench("extract", "evil", "--plan")
    assert answer.code == 2 and "error:" in answer.err
