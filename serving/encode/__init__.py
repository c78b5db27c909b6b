"""Images and texts to vectors and semantic IDs."""
