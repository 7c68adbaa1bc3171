"""Runs inside the training environment. Knows the standard library, torch and Axolotl, never the tool itself."""
