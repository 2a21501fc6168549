"""Texts that people write: what each may be, alike in the API and in the forms of the page."""

LONGEST_REASON = 500
LONGEST_CAUSE = 4000
LONGEST_RELEASE = 128
LONGEST_KEY = 128

TEXT = r"^[^\x00]*[^\x00\s][^\x00]*$"
"""Something that can be read is in it, and nothing that a database cannot keep."""

KEY = r"^[!-~]+$"
