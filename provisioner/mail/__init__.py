"""Welcome letters: what they say (letters) and how they travel (transport)."""
