"""Rules over one row: pure, fast, and deaf to anything that is not text."""
