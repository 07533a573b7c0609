"""Where a request may go: what is in it, and what follows from that. Pure: nothing here reads, waits or writes."""
