"""Forms of feed-forward networks (FFNs), dense or expert: one file and one line in the registry each."""
