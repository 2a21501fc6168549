"""The one place that everybody asks: every question and command, by the name of its fleet."""
