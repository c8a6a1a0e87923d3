import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.permutation import permute


@given(size=st.integers(1, 300), seed=st.integers(0, 2**63))
def test_every_place_is_taken_once(size, seed):
    assert sorted(permute(index, size, seed) for index in range(size)) == list(range(size))


def test_another_seed_gives_another_order_and_an_index_outside_is_refused():
    assert [permute(i, 50, 1) for i in range(50)] != [permute(i, 50, 2) for i in range(50)]
    with pytest.raises(ValueError, match="outside 0..49"):
        permute(50, 50, 1)
