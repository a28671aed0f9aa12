"""Commands that need more than one room: the demo, the benchmark, the tables of the docs."""
