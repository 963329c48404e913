"""The program beside the bare tools it stands on: ``python -m tests.bench``."""
