"""Published advisories that a request triggers, against vLLM and llama.cpp, replayed through the gateway."""
