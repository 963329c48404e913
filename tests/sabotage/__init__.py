"""Sabotages: each sabotage removes one safeguard from the program, and a test has to detect the sabotage."""
