"""Benchmarks: scripts that print a table, run by hand or by the release check, not by pytest."""
