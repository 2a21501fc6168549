"""Where verified bytes lie on this host: content-addressed blobs, unpacked trees, and what was seen."""
