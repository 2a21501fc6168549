"""Charts: what gates measured, as SVG text that the page and reports share; series in and text out."""
