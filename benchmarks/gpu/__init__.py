"""The path of vLLM on a GPU, proved from detection to the last token; see README.md beside it."""
