from __future__ import annotations

from workbench.base.errors import WorkbenchError, nearest, unknown_name


def test_an_error_joins_its_three_parts_in_sentences():
    error = WorkbenchError("the file is empty", "a trait file", "run `workbench traits new NAME`")
    assert str(error) == "The file is empty. Expected: a trait file. Run `workbench traits new NAME`."
    assert (error.found, error.expected, error.remedy) == (error.args)
    assert error.exit_code == 2


def test_parts_that_are_missing_leave_no_trace():
    assert str(WorkbenchError("d_model is 3")) == "d_model is 3."  # a name keeps its spelling
    assert str(WorkbenchError("a?", remedy="`do` this!")) == "A? `do` this!"


def test_the_nearest_name_comes_first_whatever_its_case():
    assert nearest("EVLI", ["sycophancy", "evil", "devil"])[0] == "evil"


def test_an_unknown_name_lists_the_known_ones_nearest_first():
    error = unknown_name("trait", "evli", ["sycophancy", "hallucination", "evil"])
    assert error.found == "there is no trait 'evli'"
    assert error.expected.startswith("one of evil, ")
    assert error.remedy == "did you mean 'evil'?"


def test_a_long_list_of_names_is_cut_and_says_so():
    error = unknown_name("feature", "f3", [f"f{i}" for i in range(40)], limit=5)
    assert "f3, " in error.expected and "and 35 more" in error.expected


def test_an_unknown_name_among_none_says_that_none_is_known():
    assert "none is known" in unknown_name("SAE", "x", []).expected
