"""What of each source a recording may keep: begin at sources.py; the lists are data/allowed.toml."""
