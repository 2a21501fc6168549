"""The only place that knows a product; one folder per port."""
