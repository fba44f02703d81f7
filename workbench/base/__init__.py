"""Plumbing shared by every layer: errors, storage, provenance, run folders, progress, settings. No maths."""
