"""Notices: what people are told without asking, how loud, by which sinks, and until when."""
