"""The sections of the report page, one module each; `registry.py` has their order."""
