"""The report as a site: static pages that open from disk, link by relative paths, and read every figure from records."""
