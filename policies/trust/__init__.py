"""Who is trusted: reading signed documents strictly, and deciding whether a release is admitted."""
