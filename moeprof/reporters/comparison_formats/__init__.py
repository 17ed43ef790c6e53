"""What a comparison says, in the formats that people and CI systems read: `render(comparison) -> str`, one file per format."""
