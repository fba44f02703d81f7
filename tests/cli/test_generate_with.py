"""`--generate-with`: a chat server samples, the model on the command line reads."""

from __future__ import annotations

import json

import pytest

from tests.personas.judges import server as http
from tests.short import short_trait
from tests.tiny import tiny_model
from workbench.cli.options import JobFlags
from workbench.cli.stages import Job
from workbench.personas.vectors import PersonaVector

KEY = "sk-very-secret-123"
SMALL = ("--judge", "none", "--max-new-tokens", "4", "--batch-size", "64", "--hook", "blocks.1.hook_resid_post", "-q")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("model"), tiny_model()
    made.hf.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def small_trait(tmp_path):
    """Evil with two of its instructions and 14 of its questions: 76 rollouts."""
    return short_trait("evil", tmp_path / "traits", n_questions=(10, 2, 2), n_instructions=2)


def answer(request: str):
    return http.completion(f"the people of the {'town' if 'cruel' in request else 'north'}")


def test_a_trait_is_extracted_from_what_a_server_sampled_and_asked_once(
    workbench, model, small_trait, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_API_KEY", KEY)
    with http.running(answer, name=json.dumps) as endpoint:
        command = ("extract", small_trait, "--model", model, *SMALL, "--out", tmp_path / "run", "--json",
                   "--generate-with", endpoint.url, "--generate-model", "served")  # fmt: skip
        first = workbench(*command)
        assert first.code == 0, first.err
        assert first.json["n_questions"] == 10 and endpoint.answered.total() == 2 * (3 * 10 + 2 * 4)
        assert workbench(*command).json == first.json and endpoint.seen.total() == 76
    vector = PersonaVector.load(tmp_path / "run" / "vector")
    recorded = vector.provenance["config"]["server"]
    assert (recorded["base_url"], recorded["model"]) == (endpoint.url, "served") and endpoint.keys == {f"Bearer {KEY}"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("--generate-with", "http://127.0.0.1:9/v1"), "without --generate-model"),
        (("--generate-model", "m"), "without --generate-with"),
        (("--generate-with", "127.0.0.1:9", "--generate-model", "m"), "no http(s) address"),
    ],
)
def test_half_a_server_is_refused_before_any_work(workbench, model, tmp_path, flags, found):
    answer = workbench("extract", "evil", "--model", model, *SMALL, "--out", tmp_path / "run", *flags)
    assert answer.code == 2 and found in answer.err and "--generate-" in answer.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_the_settings_name_the_server_and_only_then_is_it_part_of_the_key(model, tmp_path, monkeypatch):
    def job(**flags):
        return Job(JobFlags(model=model, judge="none", **flags).job("evil"), tmp_path, sae_needed=False)

    plain = job()
    assert "server" not in plain._vector_sources()
    monkeypatch.setenv("WORKBENCH_GENERATE_WITH", "http://h/v1")
    monkeypatch.setenv("WORKBENCH_GENERATE_MODEL", "m")
    served, other = job(), job(generate_model="n")
    assert served.config.server is not None and served.config.server.base_url == "http://h/v1"
    assert len({one.key("vector") for one in (plain, served, other)}) == 3
