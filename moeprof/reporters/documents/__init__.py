"""Reports as documents, independent of the output format."""
