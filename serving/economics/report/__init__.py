"""What was worked out, for people: in English or Russian, on a terminal, as a page, and as JSON."""
