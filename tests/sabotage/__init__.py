"""Sabotages: each one removes one safeguard from the program, and a test has to fail."""
