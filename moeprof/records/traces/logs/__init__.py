"""Readers of the logs of serving engines and of studies that name every choice of a token: one file per format."""
