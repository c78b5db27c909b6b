"""The language-model engine: label reads and short texts, in a deployment of its own."""
