from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench
from workbench.base import provenance
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash


def test_versions_name_the_packages_that_can_change_a_number():
    versions = provenance.package_versions()
    assert versions["persona-workbench"] == workbench.__version__
    assert versions["torch"] and versions["sae-lens"]
    assert provenance.package_version("no-such-distribution") is None


def test_a_record_is_json_and_carries_seed_inputs_and_the_hash_of_the_config():
    record = provenance.provenance(seed=3, inputs={"trait": "ab"}, config={"n": 1}, note={"x": (1,)})
    assert record["seed"] == 3 and record["inputs"] == {"trait": "ab"} and record["note"] == {"x": [1]}
    assert record["config_sha256"] == content_hash({"n": 1})
    json.dumps(record, allow_nan=False)


def test_the_header_of_an_evidence_file_has_the_agreed_fields():
    header = provenance.made("make evidence TOPIC=x", 0, 1.23456, {"sae": "cd"})
    assert set(header) == {"command", "seed", "versions", "cpu", "seconds", "code_commit", "inputs"}
    assert header["cpu"] and header["seconds"] == 1.235


def test_the_code_commit_is_a_commit_or_unknown():
    commit = provenance.code_commit()
    assert commit is None or len(commit.split("+")[0]) == 40


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), st.sampled_from(["select", "sealed", "train"])))
def test_a_ledger_reads_back_as_it_was_written(roles):
    ledger = provenance.DataLedger()
    for value, role in roles.items():
        ledger.add(role, [value, value])
    again = provenance.DataLedger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert again.to_dict() == ledger.to_dict()
    assert all(again.role_of(value) == role for value, role in roles.items())


def test_a_text_under_two_roles_is_refused_and_nothing_of_it_recorded():
    ledger = provenance.DataLedger()
    ledger.add("extraction", ["aa"])
    with pytest.raises(WorkbenchError, match="as 'sealed' and as 'extraction'"):
        ledger.add("sealed", ["new", "aa"])
    assert ledger.to_dict() == {"extraction": ["aa"]}
    with pytest.raises(WorkbenchError):
        provenance.DataLedger.from_dict({"a": ["x"], "b": ["x"]})
