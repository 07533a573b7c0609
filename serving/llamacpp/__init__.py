"""The CPU engine: an OpenAI server over llama.cpp with continuous batching and shared prefixes.

A request's life, in eight steps:

1. `server` checks the body with `serving.openai` and renders the chat template (`generation.template`), off the event
   loop.
2. `tokenizer` turns the text into tokens, on a thread of its own (`generation.thread`).
3. The request is put into the engine's inbox and waits in arrival order.
4. `scheduler.schedule` admits it: a sequence id, and the longest prefix that another sequence has computed already.
5. Its prompt is computed in chunks bounded by time; when others share it, they wait for the chunk they need.
6. From then on every step computes one token for it together with all the others; `generation.sampling`
   picks the token, and where the answer is held to a grammar `generation.constraint` has the last word.
7. `generation.text` turns tokens into text that is whole in UTF-8, looks for stop strings, and one wake-up per step
   carries everything to the event loop, where `answers` makes it OpenAI's.
8. At the end its cells stay behind as a prefix that may be reused, until room is needed.

`binding` is the only file that imports llama_cpp. `engine` is the thread that owns the llama context; `scheduler` and
`prefix` decide and touch nothing else. Nothing here imports the gateway: `python -m serving.llamacpp` runs alone.
"""
