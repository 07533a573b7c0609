"""How each engine is started and watched: one module per backend, one supervisor for all."""
