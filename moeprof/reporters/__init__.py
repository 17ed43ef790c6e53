"""What a run says, and the formats in which it is said: `render(run) -> str`, one file per format."""
