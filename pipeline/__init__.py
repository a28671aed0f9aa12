"""What every side of reelserve shares: contracts, limits, schedulers. NumPy only."""
