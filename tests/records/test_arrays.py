"""Where values occur first in an array."""

import numpy as np

from moeprof.records.arrays import first_places


def test_the_first_place_of_every_value_and_the_length_for_one_that_is_absent() -> None:
    assert first_places(np.array([2, 2, 0, 2, 0, 0, 4]), 5).tolist() == [2, 7, 0, 7, 6]
    assert first_places(np.array([], np.int32), 2).tolist() == [0, 0]
    assert first_places(np.array([0, 255], np.uint8), 256)[[0, 1, 255]].tolist() == [0, 2, 1]
