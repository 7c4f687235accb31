"""A trained LoRA as a folder to share: weights, a model card with the report's numbers, example pictures."""
