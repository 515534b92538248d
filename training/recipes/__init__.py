"""How the networks are built and learn: `seed` is small and quick, `accurate` as good as its size gets."""
