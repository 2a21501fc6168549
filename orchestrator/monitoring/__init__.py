"""What penstock's own processes tell of themselves: whether they are ready, and what goes on in changes."""
