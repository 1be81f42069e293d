"""Graph passes: functionalize and specialize make the function, pipeline.optimize improves it."""
