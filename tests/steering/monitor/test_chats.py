"""Files of transcripts, in every layout that they come in."""

from __future__ import annotations

import json

import pytest

from workbench.base.errors import WorkbenchError
from workbench.steering.monitor.chats import read_chats

SAID = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
LAYOUTS = [
    {"model": "m", "auditor_model": "a", "domain": "therapy", "persona": "p", "topic": "t", "turns": 1, "conversation": SAID},
    {"model": "m", "turns": 1, "steering_config": {"cap": 1}, "conversation": SAID},
    {"model": "m", "system_prompt": "Be kind.", "conversation": SAID, "projections": [0.1], "steering_coefficient": 2},
]


def test_the_three_layouts_and_our_own_in_one_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    for number, one in enumerate(LAYOUTS):
        (tmp_path / "deep" / f"{number}.json").write_text(json.dumps(one))
    (tmp_path / "list.json").write_text(json.dumps([{"messages": SAID, "id": "x"}, SAID]))
    first, second, third, fourth, fifth = read_chats(tmp_path)
    assert first["messages"] == second["messages"] == fourth["messages"] == fifth["messages"] == SAID
    assert (first["domain"], first["topic"], fourth["id"]) == ("therapy", "t", "x") and "entry 2" in fifth["source"]
    assert third["messages"] == [{"role": "system", "content": "Be kind."}, *SAID] and third["projections"] == [0.1]
    assert [one["messages"] for one in read_chats(tmp_path / "deep" / "0.json")] == [SAID]


def test_lines_of_json(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(json.dumps(one) for one in (LAYOUTS[0], SAID)))
    assert [one["messages"] for one in read_chats(path)] == [SAID, SAID]
    odd = [{"role": "user", "content": "One\u2028two\x85three."}, SAID[1]]  # ends of lines elsewhere, but not in JSON
    path.write_text(json.dumps(odd, ensure_ascii=False) + "\r\n" + json.dumps(SAID), encoding="utf-8", newline="")
    assert [one["messages"] for one in read_chats(path)] == [odd, SAID]


@pytest.mark.parametrize("text", ["", "{", '{"conversation": []}', '{"messages": "x"}', "[1]", "3", '{"conversation": [1]}'])
def test_what_is_no_transcript_is_refused_by_name(tmp_path, text):
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(text)
        with pytest.raises(WorkbenchError, match=r"a\.json"):
            list(read_chats(tmp_path / name))
