"""Label files: read, checked, merged, migrated, exchanged."""
