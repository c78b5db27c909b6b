"""Reference models: small, real, trained by this package, shipped so that a clone runs alone."""
