"""The ingest application: an ad's image and text in, semantic IDs in the store and flags out."""
