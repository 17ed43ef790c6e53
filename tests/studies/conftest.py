"""What the tests of this room share."""

from tests.garbage import little_garbage

__all__ = ["little_garbage"]
