"""The Transformers engine: PyTorch and Transformers, one request at a time. Slow, plain, the oracle.

A request's life: `server` checks the body with `serving.openai` and has it rendered and tokenised on the text thread;
it waits in `engine`'s queue; the engine's thread computes its prompt in chunks, then one token after another, with the
model's own cache; `generation.sampling` picks each token and `detokenise` makes text of it.

`directory` looks at a model's files before anything else may, `proof` has the model show that chunks and single tokens
give what the whole prompt gives. `binding` is the only file that imports torch and transformers. Nothing here imports
the gateway: `python -m serving.hf` runs alone, in an environment with torch, transformers, numpy, jinja2, uvicorn,
httptools and uvloop.
"""
