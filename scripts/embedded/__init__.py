"""How the embedded models were made: `python -m scripts.embedded.train` (docs/embedded-model.md)."""
