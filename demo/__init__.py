"""Training code of the demonstration model that ships in `serving/models/demo`."""
