"""What `reelserve faults` tries on a running server, and what it writes down."""
