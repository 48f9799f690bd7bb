"""How jobs and their numbers look on a terminal."""
