"""What is wrong with an operator's parameters is said in a sentence, and all of it at once."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from shared import parameters
from shared.errors import InputError


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=2)
    epochs: int = Field(50, ge=1, le=100)
    share: float = Field(0.5, ge=0, le=1)
    mode: Literal["fast", "exact"] = "fast"
    classes: list[str] | None = None
    field: str | None = None


def test_validation_gives_the_defaults():
    params = parameters.validate(
        Params, {"name": "ab", "field": "", "_notice_1": "x", "view_target": "DATASET", "classes": None}
    )
    assert params == Params(name="ab")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "The parameter 'name' is required"),
        ({"name": "ab", "epoch": 3}, "There is no parameter 'epoch'; did you mean 'epochs'"),
        ({"name": "ab", "epochs": 0}, "The parameter 'epochs' cannot be 0: input should be greater than or equal to 1"),
        ({"name": "ab", "epochs": "many"}, "The parameter 'epochs' cannot be 'many': input should be a valid integer"),
        ({"name": "ab", "mode": "slow"}, "The parameter 'mode' cannot be 'slow': input should be 'fast' or 'exact'"),
        ({"name": "a", "share": 2}, "(?s)'name' cannot be 'a'.*; The parameter 'share' cannot be 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(given, said):
    with pytest.raises(InputError, match=said) as caught:
        parameters.validate(Params, given)
    assert "\n" not in str(caught.value)


def test_a_pattern_is_explained_in_words():
    class Named(BaseModel):
        name: str = Field(pattern="^[a-z]+$", description="Small letters only")

    with pytest.raises(InputError, match=r"'name' cannot be 'A B' \(Small letters only\)"):
        parameters.validate(Named, {"name": "A B"})
