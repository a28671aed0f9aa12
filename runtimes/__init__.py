"""What opens an exported graph, and what is written about it beside it."""
