"""Routes of the page, one module for each kind of thing that people look at or do."""
