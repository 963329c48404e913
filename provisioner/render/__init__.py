"""Plans and problems as text for people. Functions to str, never a print."""
