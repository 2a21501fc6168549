"""Reports of changes: what one says, what gates measured, and how the time from fault to safety is split."""
