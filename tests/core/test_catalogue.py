"""Names resolved to models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparkd.core.catalogue import Catalogue, ModelId
from sparkd.errors import ModelNotFoundError
from tests.core.truth import a_model

QWEN = replace(a_model("qwen3-32b"), aliases=("qwen", "default"))
GEMMA = a_model("gemma4-31b")


def test_a_model_is_found_by_its_id_and_by_every_alias():
    catalogue = Catalogue((QWEN, GEMMA))
    assert catalogue.resolve("qwen3-32b") is QWEN
    assert catalogue.resolve("qwen") is QWEN
    assert catalogue.resolve("default") is QWEN
    assert catalogue.resolve("gemma4-31b") is GEMMA


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ModelNotFoundError) as caught:
        Catalogue((QWEN, GEMMA)).resolve("qwen3-23b")
    assert "'qwen3-23b'" in caught.value.message
    assert caught.value.hint == "did you mean 'qwen3-32b'?"


@pytest.mark.parametrize("name", ["constructor", "__class__", "", "QWEN"])
def test_a_name_like_no_other_is_refused_with_where_to_look(name: str):
    with pytest.raises(ModelNotFoundError) as caught:
        Catalogue((GEMMA,)).resolve(name)
    assert caught.value.hint == "GET /v1/models lists the models"


def test_an_id_is_looked_up_exactly_and_an_alias_is_no_id():
    catalogue = Catalogue((QWEN, GEMMA))
    assert catalogue.get(ModelId("qwen3-32b")) is QWEN
    assert catalogue.get(ModelId("qwen")) is None


def test_a_catalogue_keeps_the_order_in_which_it_was_written():
    assert [m.id for m in Catalogue((QWEN, GEMMA))] == ["qwen3-32b", "gemma4-31b"]
    assert len(Catalogue((QWEN, GEMMA))) == 2
    assert len(Catalogue()) == 0
