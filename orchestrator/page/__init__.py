"""The page: what the API answers, for people who would rather look; rendered here, and live by events."""
