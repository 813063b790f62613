"""The doctor: what of a catalog, its store and a declared table works, what does not, and what to do."""
