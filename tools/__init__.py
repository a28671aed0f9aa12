"""What joins rooms: demo, benchmarks, faults, tables of the pages."""
