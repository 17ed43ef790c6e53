"""moeprof: profiles and characterizes Mixture-of-Experts inference."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moeprof.studies.recording import record

__version__ = "0.1.0"
__all__ = ["__version__", "record"]


def __getattr__(name: str) -> Any:
    """Imports `record` when it is first used, because it needs torch."""
    if name != "record":
        raise AttributeError(f"module 'moeprof' has no attribute {name!r}")
    from moeprof.studies.recording import record

    return record
