"""Fixtures for the tests of this package."""

from tests.garbage import little_garbage

__all__ = ["little_garbage"]
