"""What every engine that computes by itself shares: from a conversation to a prompt, from a row of logits to meaning.

`template` writes the prompt, `sampling` chooses tokens, `text` turns them into text that may leave. Nothing here knows
which library computes the model.
"""
