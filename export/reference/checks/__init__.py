"""The reference language model that judges ads, and the adapter by which it sees images."""
