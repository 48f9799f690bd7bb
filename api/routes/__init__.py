"""One file per resource; a handler is three to ten lines."""
