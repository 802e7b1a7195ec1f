"""The fuzz targets, for a moment each and always the same inputs, so that they never rot."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from tests.fuzz.mutate import inputs
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_withstands_its_seeds_and_some_mutations(name: str) -> None:
    target = TARGETS[name]
    for data in islice(inputs(target.seeds(), random.Random(7)), 60):
        target.run(data)


def test_the_mutator_makes_inputs_of_every_kind() -> None:
    made = list(islice(inputs([b"0123456789" * 9], random.Random(1)), 500))
    assert len(set(made)) > 400
    assert min(map(len, made)) < 50 < 200 < max(map(len, made)) <= 4096
