"""Programs that measure Headrace; each prints one JSON object with `--json`."""
