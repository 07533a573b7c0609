"""What belongs to the held-out part alone: its names, its spellings of identifiers, its secrets, its carriers.

Its sentences, titles, vocabularies and scenes are in `templates/held_out`. Nobody who works on a detector reads either.
"""
