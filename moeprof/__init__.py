"""moeprof: profiles and characterizes Mixture-of-Experts inference."""

__version__ = "0.1.0"
