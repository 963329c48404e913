"""Sabotages: each takes one safeguard out of the program, and a test has to fail."""
