"""The program with one safeguard taken out, and the tests that notice: ``python -m tests.sabotage``."""
