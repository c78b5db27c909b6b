"""The main job: `python -m serving up`, from bundles and creatives to answered lookups."""
