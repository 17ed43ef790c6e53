"""The report page: one self-contained HTML file with figures that answer to selectors, made of the sections of `sections/`."""
