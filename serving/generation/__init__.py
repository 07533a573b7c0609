"""What every engine that computes by itself shares: from a conversation to a prompt, from a row of logits to meaning.

`template` writes the prompt and `prompt` says whether it may be served, both on the thread of `thread`; `sampling`
chooses tokens, `constraint` holds them to a grammar that `compiler` made, `logprobs` says how likely they were, and
`text` turns them into text that may leave. Nothing here knows which library computes the model.
"""
