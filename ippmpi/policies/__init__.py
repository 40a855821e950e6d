"""One scheduling policy a file; found by ippmpi/plugins.py."""
