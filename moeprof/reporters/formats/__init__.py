"""One file per report format: render(run) -> str."""
