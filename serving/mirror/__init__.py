"""The store as a read-only Hugging Face hub for others inside the perimeter, from verified blobs.

`repositories` decides what is offered and under which names, `hub` what a request is answered with; both are pure.
`shelf` reads the store and opens files, `server` speaks HTTP.
"""
