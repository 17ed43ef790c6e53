"""Files of other tools that say which device holds which experts."""
