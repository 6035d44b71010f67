"""What a filter means, and what is no filter."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypclip.errors import InputError
from hypclip.search import ANYTHING, Where
from hypclip.search.where import MAX_FIELDS, MAX_VALUES, matches
from tests.support.search import names, scalars, unchecked, values


def holds(metadata, **filter):
    return matches(metadata, Where(filter).conditions)


@pytest.mark.parametrize(
    "value, wanted, expected",
    [
        (1, 1, True),
        (1, 1.0, True),
        (1.0, 1, True),
        (1, True, False),
        (True, 1, False),
        (0, False, False),
        (False, 0, False),
        (True, True, True),
        (False, True, False),
        (1, "1", False),
        ("1", 1, False),
        ("a", "a", True),
        ("a", "A", False),
        ("é", "é", True),
        ("é", "e\u0301", False),
        ("", "", True),
        (None, None, True),
        (0, None, False),
        ("null", None, False),
        (None, "null", False),
        (False, None, False),
        ("true", True, False),
        (-0.0, 0, True),
        (0.1 + 0.2, 0.3, False),
        (2**53 + 1, 2**53, False),
        # Any of several.
        ("b", ["a", "b"], True),
        ("c", ["a", "b"], False),
        (None, ["a", None], True),
        (1, [True, "1", None], False),
        (True, [1, True], True),
        ("a", ("a", "b"), True),
        # A value that is a list holds where an element does.
        (["a", "b"], "b", True),
        (["a", "b"], ["c", "b"], True),
        (["a", 1], True, False),
        ([None], None, True),
        ([], None, False),
        ([["a"]], "a", False),
        ([["a"], "a"], "a", True),
        ([{"x": "a"}], "a", False),
        # An object never does, nor its values.
        ({"x": "a"}, "a", False),
        ({}, None, False),
        # Ranges.
        (3, {"gt": 3}, False),
        (3, {"gte": 3}, True),
        (3, {"lt": 3}, False),
        (3, {"lte": 3}, True),
        (3, {"gte": 2, "lt": 4}, True),
        (4, {"gte": 2, "lt": 4}, False),
        (3, {"gt": 4, "lt": 2}, False),
        (True, {"gte": 0}, False),
        ("3", {"gte": 0}, False),
        (None, {"gte": 0}, False),
        ({"x": 3}, {"gte": 0}, False),
        ([1, 5], {"gte": 4}, True),
        ([1, 9], {"gt": 2, "lt": 8}, False),
        ([1, 5, 9], {"gt": 2, "lt": 8}, True),
        ([[5]], {"gt": 2}, False),
        pytest.param(10**400, {"gt": 5}, True, id="10**400"),
        (2**53 + 1, {"gt": 2**53}, True),
        (-1.5, {"lt": -1}, True),
    ],
)
def test_what_a_condition_means(value, wanted, expected):
    assert holds({"v": value}, v=wanted) == expected


def test_null_is_not_missing():
    assert holds({"v": None}, v=None)
    assert not holds({}, v=None)
    assert not holds({"w": None}, v=None)


def test_every_field_must_hold():
    metadata = {"a": 1, "b": "x"}
    assert holds(metadata, a=1, b="x")
    assert not holds(metadata, a=1, b="y")
    assert holds(metadata)
    assert matches({}, ANYTHING.conditions)


def test_a_field_is_a_key_at_the_top_whatever_it_looks_like():
    metadata = {"a": {"b": 1}, "a.c": 2, "l": [3], "l[0]": 4}
    assert matches(metadata, Where({"a.c": 2, "l[0]": 4}).conditions)
    assert not matches(metadata, Where({"a.b": 1}).conditions)


@given(st.dictionaries(names, values, max_size=4), names, scalars)
def test_json_does_not_change_what_holds(metadata, name, wanted):
    conditions = Where({name: wanted}).conditions
    assert matches(json.loads(json.dumps(metadata)), conditions) == matches(metadata, conditions)


@given(st.dictionaries(names, values, min_size=1, max_size=4), st.data())
def test_a_list_of_values_is_the_or_of_each(metadata, data):
    name = data.draw(st.sampled_from(sorted(metadata)))
    wanted = data.draw(st.lists(scalars, min_size=1, max_size=4))
    one_by_one = any(matches(metadata, Where({name: value}).conditions) for value in wanted)
    assert matches(metadata, Where({name: wanted}).conditions) == one_by_one


@pytest.mark.parametrize(
    "filter, message",
    [
        ({"": 1}, "got ''"),
        ({'a"b': 1}, "without quotes, backslashes or control signs"),
        ({"a\\b": 1}, "without quotes, backslashes or control signs"),
        ({"a\nb": 1}, "without quotes, backslashes or control signs"),
        ({"a": "b\0"}, "NUL"),
        ({"a\0": 1}, "without quotes, backslashes or control signs"),
        ({"\ud800": 1}, "without quotes, backslashes or control signs"),
        ({1: 1}, "names metadata fields .* got 1"),
        ({"v": []}, "filter on 'v': a list has 1 to 1024 values, got 0"),
        ({"v": [0] * (MAX_VALUES + 1)}, "filter on 'v': a list has 1 to 1024 values, got 1025"),
        ({"v": [[1]]}, r"filter on 'v': expected a string, a number, true, false or null, got \[1\]"),
        ({"v": [{"gt": 1}]}, "filter on 'v': expected a string"),
        ({"v": object()}, "filter on 'v': expected a string"),
        ({"v": {1, 2}}, "filter on 'v': expected a string"),
        ({"v": math.nan}, "filter on 'v': numbers are finite, got nan"),
        ({"v": math.inf}, "filter on 'v': numbers are finite, got inf"),
        ({"v": [1, -math.inf]}, "filter on 'v': numbers are finite, got -inf"),
        ({"v": 2**53 + 1}, "filter on 'v': numbers are compared as float64"),
        ({"v": 1e300}, "filter on 'v': numbers are compared as float64"),
        ({"v": "\ud800"}, "filter on 'v': the string is not valid Unicode"),
        ({"v": {}}, "filter on 'v': a range has some of gt, gte, lt, lte, got {}"),
        ({"v": {"ge": 1}}, "filter on 'v': a range has some of gt, gte, lt, lte, got ge"),
        ({"v": {"gt": 1, "x": 1}}, "got gt, x"),
        ({"v": {"gt": "1"}}, "filter on 'v': the bounds of a range are numbers, got '1'"),
        ({"v": {"gt": True}}, "the bounds of a range are numbers, got True"),
        ({"v": {"gt": None}}, "the bounds of a range are numbers, got None"),
        ({"v": {"gt": math.nan}}, "filter on 'v': numbers are finite, got nan"),
        ({"v": {"gt": 2**60}}, "filter on 'v': numbers are compared as float64"),
        ({str(i): i for i in range(MAX_FIELDS + 1)}, "a filter has at most 32 fields, got 33"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_field(filter, message):
    with unchecked(), pytest.raises(InputError, match=message):
        Where(filter)


@pytest.mark.parametrize("filter", [{"v": b"ab"}, {"v": {1: 2}}], ids=["bytes", "a bound that is no string"])
def test_what_json_cannot_say_is_no_filter(filter):
    with unchecked(), pytest.raises(InputError, match="filter on 'v'"):
        Where(filter)


@pytest.mark.parametrize(
    "filter", [{"v": [0] * MAX_VALUES}, {str(i): i for i in range(MAX_FIELDS)}, {"v": 2**53}, {"v": -(2**53)}, {}, None]
)
def test_the_limits_themselves_are_allowed(filter):
    assert len(Where(filter).conditions) == len(filter or {})


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan), (0.0, -0.5)])
def test_a_range_of_radii_has_an_order(low, high):
    with pytest.raises(InputError, match="0 ≤ min_radius ≤ max_radius"):
        Where(min_radius=low, max_radius=high)


def test_an_unknown_modality_is_refused():
    with (
        unchecked(),
        pytest.raises(InputError, match="unknown modality 'smell', expected one of text, image, embedding"),
    ):
        Where(modality="smell")


def test_radii_count_as_restricted_only_where_they_are():
    assert not ANYTHING.by_radius
    assert Where(min_radius=0.1).by_radius
    assert Where(max_radius=3.0).by_radius
