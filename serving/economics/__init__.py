"""What inference costs: through an API, on machines of one's own, or both; and how sure that is. docs/economics.md."""
